"""The control routes on the admin port: demand out, cores in. Both need the pod's bearer token; state needs none and
shows no request."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from knative_sponge.core.events import CoresChanged
from knative_sponge.core.size import Size
from knative_sponge.proxy.demand import DemandFeed
from knative_sponge.proxy.hook import CpuHook

_MOST_BYTES = 4096


class Resizing:
    """The size of the model server as the proxy plans with it (core.size), and who has to hear of it."""

    def __init__(self, cores: float, tell: Callable[[CoresChanged], None], hook: CpuHook | None) -> None:
        self._size = Size(cores)
        self._tell = tell
        self._hook = hook

    @property
    def size(self) -> Size:
        """What is in force and what is coming."""
        return self._size

    def take(self, size: Size) -> None:
        """Go over to a new size: plan with it, and tell the model server when it must know."""
        if size.cores != self._size.cores:
            self._tell(CoresChanged(size.cores))
        if size.hook is not None and self._hook is not None:
            self._hook.tell(size.hook)
        self._size = size


def control_routes(
    token: str | None, feed: DemandFeed, resizing: Resizing, state: Callable[[], dict[str, Any]]
) -> Sequence[Route]:
    """Routes `/sponge/v1/{demand,cores,state}` (docs/design.md). Without a token the first two are closed."""

    def allowed(request: Request) -> bool:
        given = request.headers.get("authorization", "")
        return bool(token) and hmac.compare_digest(given.encode(), f"Bearer {token}".encode())

    async def demand(request: Request) -> Response:
        if not allowed(request):
            return _denied()
        return StreamingResponse(feed.lines(), media_type="application/jsonl")

    async def cores(request: Request) -> Response:
        if not allowed(request):
            return _denied()
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return _wrong("a body of at most 4096 bytes")
        try:
            message = json.loads(body)
            number, phase = float(message["cores"]), message["phase"]
        except (ValueError, TypeError, KeyError):
            return _wrong('{"cores": 1.2, "phase": "patched"} or {"cores": 1.2, "phase": "actuated"}')
        if not 0.001 <= number <= 4096:
            return _wrong("cores to be a number from 0.001 to 4096")
        size = resizing.size
        if phase == "patched":
            resizing.take(size.patched(number))
        elif phase == "actuated":
            resizing.take(size.actuated(number))
        else:
            return _wrong('phase to be "patched" or "actuated"')
        return Response(status_code=204)

    async def show(_: Request) -> Response:
        return JSONResponse(state())

    return [
        Route("/sponge/v1/demand", demand, methods=["GET"]),
        Route("/sponge/v1/cores", cores, methods=["PUT"]),
        Route("/sponge/v1/state", show, methods=["GET"]),
    ]


def _denied() -> Response:
    return JSONResponse({"error": "a bearer token is needed"}, status_code=401, headers={"www-authenticate": "Bearer"})


def _wrong(allowed: str) -> Response:
    return JSONResponse({"error": f"expected {allowed}"}, status_code=400)
