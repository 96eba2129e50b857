"""Tells probes and ordinary requests apart and answers the probes exactly as Knative expects (docs/knative-contract.md §1.5).

Probes never wait behind requests: nothing here queues, and nothing here reads a body.
"""

from __future__ import annotations

from typing import Final

from knative_sponge.asgi import ASGIApp, Receive, Scope, Send
from knative_sponge.codec.base import Answer
from knative_sponge.errors import Reason
from knative_sponge.proxy.http.plain_answers import deliver, error, text
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.knative.server_readiness import Readiness

_MOST_SHOWN: Final = 200
_PROBERS: Final = (b"kube-probe/", b"Knative-Activator-Probe", b"Knative-Autoscaling-Probe")
_EMPTY: Final = (b"content-length", b"0")
_READY: Final = text(200, b"queue")
_OPTIONS: Final = Answer(200, (_EMPTY,), b"")
"""`OPTIONS *` asks about the server, not about what it serves."""
_NOT_READY: Final = Answer(503, (_EMPTY,), b"")
_DRAINING: Final = error(503, "shutting down")
_NO_HASH: Final = error(400, 'a probe request must contain a non-empty "K-Network-Hash" header')
_GONE: Final = error(
    503, "shutting down", (b"sponge-reason", Reason.DRAINING.value.encode()), (b"connection", b"close")
)


class ProbeHandler:
    """ASGI layer: answers health checks and route probes, and passes everything else to `app`.

    Once the drain is over, everything else is refused (`draining`).
    """

    def __init__(self, app: ASGIApp, readiness: Readiness, drain: Drain) -> None:
        self._app = app
        self._readiness = readiness
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["raw_path"] == b"*":
            await deliver(_OPTIONS, send)
            return
        agent = probe = None
        for name, value in scope["headers"]:
            if name == b"user-agent" and agent is None:
                agent = value
            elif name == b"k-network-probe" and probe is None:
                probe = value
        if agent is not None and agent.startswith(_PROBERS):
            scope["sponge.probe"] = True
            await deliver(await self._health(probe or b""), send)
        elif probe == b"probe":
            scope["sponge.probe"] = True
            await deliver(self._route(scope), send)
        elif self._drain.over:
            await deliver(_GONE, send)
        else:
            if self._drain.draining:
                self._drain.touch()
            await self._app(scope, receive, send)

    async def _health(self, probe: bytes) -> Answer:
        if self._drain.draining:
            return _DRAINING
        if probe != b"queue":
            return error(400, f"unexpected probe header value: {probe[:_MOST_SHOWN].decode('latin-1')}")
        return _READY if await self._readiness.check() else _NOT_READY

    def _route(self, scope: Scope) -> Answer:
        if self._drain.draining:
            return _DRAINING
        value = next((value for name, value in scope["headers"] if name == b"k-network-hash"), b"")
        return Answer(200, ((b"k-network-hash", value), _EMPTY), b"") if value else _NO_HASH
