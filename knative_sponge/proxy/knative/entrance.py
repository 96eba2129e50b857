"""Where ordinary requests are counted and admitted, before they wait for anything; reads no body and answers nothing."""

from __future__ import annotations

from knative_sponge.asgi import ASGIApp, Receive, Scope, Send
from knative_sponge.errors import QueueFull
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.stat import StatReporter


class Entrance:
    """ASGI layer: a request counts from here to the end of its answer, whatever it does meanwhile.

    A request that is marked as the kubelet's own (`K-Kubelet-Probe`) goes to `bypass` uncounted and unlimited
    (docs/knative-contract.md §1.5). Raises QueueFull; a request that the breaker refuses counts as an arrival. One whose
    connection has only a spare place is refused at once: by then those that must be answered have been.
    """

    def __init__(self, app: ASGIApp, bypass: ASGIApp, breaker: Breaker | None, stat: StatReporter | None) -> None:
        self._app = app
        self._bypass = bypass
        self._breaker = breaker
        self._stat = stat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proxied = False
        for name, value in scope["headers"]:
            if name == b"k-proxy-request":
                proxied = value == b"activator"
            elif name == b"k-kubelet-probe" and value:
                await self._bypass(scope, receive, send)
                return
        if "sponge.full" in scope:
            raise QueueFull("as many connections are open as may be", retry_after_s=1)
        breaker, stat = self._breaker, self._stat
        if stat is not None:
            stat.enter(proxied)
        try:
            if breaker is None:
                await self._app(scope, receive, send)
                return
            breaker.admit()
            try:
                await self._app(scope, receive, send)
            finally:
                breaker.leave()
        finally:
            if stat is not None:
                stat.leave(proxied)


class ConcurrencySlots:
    """ASGI layer: each request holds one of the breaker's slots while `app` runs; it waits until one is free."""

    def __init__(self, app: ASGIApp, breaker: Breaker) -> None:
        self._app = app
        self._breaker = breaker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._breaker:
            await self._app(scope, receive, send)
