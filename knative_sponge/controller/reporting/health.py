"""The HTTP applications that the kubelet and Prometheus ask: health checks and metrics. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def health_app(checks: Mapping[str, Callable[[], bool]]) -> Starlette:
    """`/healthz` is 200 while the event loop runs. `/readyz` is 200 when every check passes, else 503 with the failed ones."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        failing = [name for name, passes in checks.items() if not passes()]
        if failing:
            return PlainTextResponse("".join(f"not ready: {name}\n" for name in failing), status_code=503)
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])


def metrics_app(render: Callable[[], bytes], more: Sequence[Route] = ()) -> Starlette:
    """`/metrics` in Prometheus' text format, and `more` beside it."""

    async def metrics(_request: Request) -> Response:
        return Response(render(), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/metrics", metrics), *more])
