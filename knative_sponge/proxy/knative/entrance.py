"""Where ordinary requests are counted and admitted, before they wait for anything; reads no body and answers nothing."""

from __future__ import annotations

from typing import Final

from knative_sponge.asgi import ASGIApp, Receive, Scope, Send
from knative_sponge.errors import QueueFull
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.node import Node
from knative_sponge.proxy.knative.stat import StatReporter

_PROBING: Final = frozenset({"GET", "HEAD"})
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class Entrance:
    """ASGI layer: a request counts from here to the end of its answer, whatever it does meanwhile.

    A probe of the kubelet's own goes to `bypass`, uncounted and unlimited (docs/knative-contract.md §1.5). It is one if it is
    marked (`K-Kubelet-Probe`), a GET or HEAD without a body, and from the node or the pod: anybody can write a field.
    Raises QueueFull; a request that the breaker refuses counts as an arrival. One whose connection has only a spare place is
    refused at once: by then those that must be answered have been.
    """

    def __init__(
        self, app: ASGIApp, bypass: ASGIApp, breaker: Breaker | None, stat: StatReporter | None, node: Node
    ) -> None:
        self._app = app
        self._bypass = bypass
        self._breaker = breaker
        self._stat = stat
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proxied = marked = False
        for name, value in scope["headers"]:
            if name == b"k-proxy-request":
                proxied = value == b"activator"
            elif name == b"k-kubelet-probe" and value:
                marked = True
        if marked and self._is_probe(scope):
            scope["sponge.probe"] = True
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

    def _is_probe(self, scope: Scope) -> bool:
        """Whether a request that is marked as the kubelet's is what the kubelet sends."""
        if scope["method"] not in _PROBING or "sponge.upgrade" in scope:
            return False
        has_body = any(name in _FRAMING and value != b"0" for name, value in scope["headers"])
        return not has_body and self._node.speaks(scope)


class ConcurrencySlots:
    """ASGI layer: each request holds one of the breaker's slots while `app` runs; it waits until one is free."""

    def __init__(self, app: ASGIApp, breaker: Breaker) -> None:
        self._app = app
        self._breaker = breaker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._breaker:
            await self._app(scope, receive, send)
