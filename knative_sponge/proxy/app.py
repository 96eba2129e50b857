"""Puts the ASGI applications of the ports together, outermost layer first (docs/knative-contract.md §1.6); opens no socket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from knative_sponge.asgi import ASGIApp, Receive, Scope, Send
from knative_sponge.codec.target import matches, readings
from knative_sponge.errors import BadRequest
from knative_sponge.proxy.knative.breaker import Breaker, breaker_for
from knative_sponge.proxy.knative.drain import Drain, WaitForDrain
from knative_sponge.proxy.knative.entrance import ConcurrencySlots, Entrance
from knative_sponge.proxy.knative.header_shims import HeaderShims
from knative_sponge.proxy.knative.node import Node
from knative_sponge.proxy.knative.observe import Observed, Observers
from knative_sponge.proxy.knative.probe_handler import ProbeHandler
from knative_sponge.proxy.knative.server_readiness import Readiness
from knative_sponge.proxy.knative.stat import StatReporter
from knative_sponge.proxy.knative.timeouts import Timeouts
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.proxy.upstream.relay import Relay
from knative_sponge.settings import ProxySettings

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class InferenceHandler(Protocol):
    """The deadline queue in front of the model server, as the data port's application sees it.

    It may raise RequestFailed before it answers. A client that leaves cancels the call.
    """

    def wants(self, scope: Scope) -> bool:
        """Whether the request is for the queue, judged by its head alone; others are passed through unbuffered."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that it wants."""
        ...


class _Router:
    """ASGI application: passes inference requests to the queue, all others to the model server.

    A request that offers to switch protocols is never queued: another protocol cannot be batched.
    """

    def __init__(self, inference: InferenceHandler, relay: ASGIApp) -> None:
        self._inference = inference
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued = "sponge.upgrade" not in scope and self._inference.wants(scope)
        await (self._inference if queued else self._relay)(scope, receive, send)


class _HookGuard:
    """ASGI application: keeps clients from telling the model server what only the proxy may tell it, however they spell it."""

    def __init__(self, app: ASGIApp, hook: str) -> None:
        self._app = app
        path = next(readings(hook.encode().partition(b"?")[0]))
        self._path = re.compile(re.escape(path))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _SAFE and matches(self._path, scope["sponge.target"]):
            raise BadRequest("this path of the model server is for its queue-proxy alone", status=403)
        await self._app(scope, receive, send)


def data_app(
    settings: ProxySettings,
    upstream: Upstream,
    drain: Drain,
    inference: InferenceHandler | None = None,
    *,
    breaker: Breaker | None = None,
    stat: StatReporter | None = None,
    observers: Observers | None = None,
    node: Node | None = None,
    hook: str | None = None,
) -> ASGIApp:
    """What the data port serves. No path of it is ours: all belong to the user's application.

    breaker: shared with `inference`; None makes one as the settings say.
    stat: where requests are counted; None counts nothing.
    observers: who is told of exchanges; None tells nobody.
    node: whose probes are no requests; None is the one that the pod's routes lead to.
    hook: path of the model server that is for the proxy alone (`cpu-hook`).
    """
    if breaker is None:
        breaker = breaker_for(settings.container_concurrency)
    observers = observers or Observers()
    relay: ASGIApp = Relay(upstream)
    if observers.inner:
        relay = Observed(relay, observers.inner)
    app = relay if breaker is None else ConcurrencySlots(relay, breaker)
    if inference is not None:
        app = _Router(inference, app)
    if hook is not None:
        app = _HookGuard(app, hook)
    app = Entrance(app, relay, breaker, stat, Node(settings.host_ips) if node is None else node)
    app = HeaderShims(app, upstream.authority)
    app = Timeouts(
        app,
        total_s=settings.timeout_s,
        start_s=settings.response_start_timeout_s,
        idle_s=settings.idle_timeout_s,
    )
    app = ProbeHandler(app, Readiness(settings.probes, detect_http2=settings.detect_http2), drain)
    return Observed(app, observers.outer) if observers.outer else app


def admin_app(drain: Drain, node: Node, routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """What the admin port serves: the kubelet's preStop hook, and `routes`."""
    return Starlette(routes=[Route("/wait-for-drain", WaitForDrain(drain, node)), *routes])
