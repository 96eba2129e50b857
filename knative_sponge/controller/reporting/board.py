"""The overview of all revisions and nodes: the leader publishes it, command-line tools read it; nothing is computed here.

It is served as `GET /sponge/v1/revisions` on the metrics port, to the pod itself only: it names all tenants' revisions, pods
and models. Who may forward a port of the pod comes from there, and that is a right of Kubernetes. It never names a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from knative_sponge.asgi import from_loopback
from knative_sponge.controller.reporting.rows import PATH, NodeRow, Overview, RevisionRow

Rows = Callable[[], tuple[Sequence[RevisionRow], Sequence[NodeRow]]]
"""Makes the rows of all revisions and nodes as they are when it is called."""


class Board:
    """The overview, if this replica leads. Rows are made when somebody asks for them, not when they are published.

    clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: tuple[float, Rows] | None = None

    def publish(self, rows: Rows) -> None:
        """Answer with `rows` from now on. `age_s` counts from this call."""
        self._latest = (self._clock(), rows)

    def clear(self) -> None:
        """Forget the rows: this replica leads no more."""
        self._latest = None

    def as_json(self) -> bytes | None:
        """The document of `Overview.to_json`; None while this replica does not lead."""
        if self._latest is None:
            return None
        at_s, rows = self._latest
        revisions, nodes = rows()
        return Overview(round(max(0.0, self._clock() - at_s), 3), tuple(revisions), tuple(nodes)).to_json()

    @property
    def routes(self) -> list[Route]:
        """For the application of the metrics port."""
        return [Route(PATH, self._show, methods=["GET"])]

    async def _show(self, request: Request) -> Response:
        if not from_loopback(request.scope):
            return JSONResponse({"message": "only for who forwards a port of this pod"}, status_code=403)
        document = self.as_json()
        if document is None:
            return JSONResponse({"message": "this replica does not lead"}, status_code=503)
        return Response(document, media_type="application/json")
