"""The control routes on the admin port: demand out, cores in. Both need the pod's bearer token. So does the state, but from
inside the pod; it shows no request."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from knative_sponge.asgi import from_loopback
from knative_sponge.core.batching.events import CoresChanged
from knative_sponge.core.demand.planned_size import Size
from knative_sponge.errors import WireError
from knative_sponge.proxy.queue.authorisation import Authorisation
from knative_sponge.proxy.queue.cpu_hook import CpuHook
from knative_sponge.proxy.queue.demand import DemandFeed
from knative_sponge.wire.cores import Phase, decode_cores
from knative_sponge.wire.http import CORES_PATH, DEMAND_PATH, STATE_PATH
from knative_sponge.wire.state import ProxyState, encode_state

_MOST_BYTES = 4096
_EXPECTED = '{"cores": 1.2, "phase": "patched"} or {"cores": 1.2, "phase": "actuated"}, maybe "reach": 4.0'
_UNDER_WAY_S = 5.0
"""A resize that is not confirmed for so long may not come for long: the node has no room, or nobody is there to confirm it."""


class Resizing:
    """The size of the model server as the proxy plans with it (`core/demand/planned_size.py`), and who has to hear of it.

    cores: at start. reach: the most that one resize can give, until somebody knows better. most: bound of the reach.
    """

    def __init__(
        self,
        cores: float,
        reach: float,
        tell: Callable[[CoresChanged], None],
        hook: CpuHook | None,
        most: float = math.inf,
    ) -> None:
        self._size = Size(cores)
        self._reach = reach
        self._most = most
        self._tell = tell
        self._hook = hook
        self._patched_s = -math.inf

    @property
    def size_confirmed(self) -> bool:
        """Is the size that is planned with the one in force, as far as anybody can know?"""
        return self._size.sure or time.monotonic() - self._patched_s > _UNDER_WAY_S

    @property
    def size(self) -> Size:
        """What is in force and what is coming."""
        return self._size

    @property
    def reach(self) -> float:
        """The most cores that one resize can give, as far as is known."""
        return self._reach

    def take(self, size: Size, reach: float | None = None) -> None:
        """Go over to a new size: plan with it, and tell the model server when it must know. reach: None leaves it as it is;
        what is in force is always within reach."""
        reach = min(max(self._reach if reach is None else reach, size.cores), self._most)
        if size.cores != self._size.cores or reach != self._reach:
            self._reach = reach
            self._tell(CoresChanged(size.cores, reach))
        if size.hook is not None and self._hook is not None:
            self._hook.tell(size.hook)
        if not size.sure and (self._size.sure or size.cores != self._size.cores):
            self._patched_s = time.monotonic()
        self._size = size


def control_routes(
    allowed: Authorisation, feed: DemandFeed, resizing: Resizing, state: Callable[[], ProxyState]
) -> Sequence[Route]:
    """Routes `/sponge/v1/{demand,cores,state}` (docs/design.md §5.2)."""

    def by_token(request: Request) -> bool:
        return allowed.allows(request.headers.get("authorization", ""))

    async def demand(request: Request) -> Response:
        if not by_token(request):
            return _denied()
        return StreamingResponse(feed.lines(), media_type="application/jsonl")

    async def cores(request: Request) -> Response:
        if not by_token(request):
            return _denied()
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return _wrong("more than 4096 bytes")
        try:
            message = decode_cores(body)
        except WireError as error:
            return _wrong(str(error))
        reach = None if message.reach is UNSET else max(message.reach, message.cores)
        size = resizing.size
        change = size.patched if message.phase is Phase.PATCHED else size.actuated
        resizing.take(change(message.cores), reach)
        return Response(status_code=204)

    async def show(request: Request) -> Response:
        if not (from_loopback(request.scope) or by_token(request)):
            return _denied()
        return Response(encode_state(state()), media_type="application/json")

    return [
        Route(DEMAND_PATH, demand, methods=["GET"]),
        Route(CORES_PATH, cores, methods=["PUT"]),
        Route(STATE_PATH, show, methods=["GET"]),
    ]


def _denied() -> Response:
    return JSONResponse({"error": "a bearer token is needed"}, status_code=401, headers={"www-authenticate": "Bearer"})


def _wrong(error: str) -> Response:
    return JSONResponse({"error": f"{error}; expected {_EXPECTED}"}, status_code=400)
