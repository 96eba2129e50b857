"""Looks at exchanges from outside: how they ended, how long they took, how much was carried. Changes nothing of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from knative_sponge.asgi import ASGIApp, Message, Receive, Scope, Send
from knative_sponge.errors import RequestFailed
from knative_sponge.proxy.http.headers import Pair
from knative_sponge.proxy.http.plain_answers import refusal

_CLIENT_GONE: Final = 499
"""The status of an exchange whose client left before an answer began."""


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """An exchange that is over.

    headers: of the request, as this layer was given them. received, sent: bytes of the bodies. probe: whether a layer
    below took it for one of Knative's or the kubelet's (`sponge.probe` in the scope). What the model server is asked for
    counts, whatever its fields call it.
    """

    scope: Scope
    headers: Sequence[Pair]
    status: int
    received: int
    sent: int
    seconds: float
    probe: bool


Observer = Callable[[ExchangeRecord], None]


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told of what.

    outer: each exchange with a client, from its arrival. inner: each request that is passed through to the model
    server, from when it has its slot.
    """

    outer: Sequence[Observer] = ()
    inner: Sequence[Observer] = ()


class Observed:
    """ASGI layer: tells each observer of each exchange, when it is over. clock: seconds, monotonic."""

    def __init__(
        self, app: ASGIApp, observers: Sequence[Observer], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._observers = tuple(observers)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Sequence[Pair] = scope["headers"]
        count = _Count(receive, send)
        began_s = self._clock()
        otherwise = 500
        try:
            await self._app(scope, count.receive, count.send)
            otherwise = count.announced or otherwise
        except RequestFailed as failure:
            answer = refusal(failure)
            otherwise = answer.status
            if count.status is None:
                count.sent = len(answer.body)
            raise
        except asyncio.CancelledError:
            otherwise = _CLIENT_GONE
            raise
        finally:
            status = otherwise if count.status is None else count.status
            seconds = self._clock() - began_s
            probe = scope.get("sponge.probe", False)
            record = ExchangeRecord(scope, headers, status, count.received, count.sent, seconds, probe)
            for observer in self._observers:
                observer(record)


class _Count:
    """The messages of one exchange."""

    __slots__ = ("_receive", "_send", "announced", "received", "sent", "status")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.received = self.sent = 0
        self.announced: int | None = None
        self.status: int | None = None
        """Of an answer that the client sees; an announced one may still be replaced by a failure."""

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.status = self.announced
        elif kind == "http.response.start":
            self.announced = message["status"]
        await self._send(message)


def first(headers: Sequence[Pair], name: bytes) -> bytes:
    """The first value of a field; empty without one."""
    for key, value in headers:
        if key == name:
            return value
    return b""
