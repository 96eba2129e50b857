"""What every proxy asks for, kept up to date: one stream of JSON lines per pod (docs/design.md); nothing is decided here.

A stream that ends is opened again after a growing wait, one that says nothing for SILENCE_S is dead. What was heard last is
kept with its time: how old news may be is the reader's to judge. At most CONNECTING connections are being made at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import httptools
import msgspec

from knative_sponge.controller.backoff import Backoff
from knative_sponge.controller.resource import Key

_log: Final = logging.getLogger(__name__)

ADMIN_PORT: Final = 8022
SILENCE_S: Final = 5.0
"""A proxy says something every second; after so long without a word its connection is given up."""
CONNECTING: Final = 32
_CONNECT_S: Final = 3.0
_LONGEST_LINE: Final = 64 * 1024


_Cores = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
_Size = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a proxy's demand stream; fields that an older proxy does not send have their defaults.

    Whatever else runs in a pod can speak on its address: numbers that cannot be are no line, so that nobody further on has
    to reckon with them.

    cores: what it plans with. want: the least it needs. curve: (cores, rows per second expected to miss). rate: arriving rows
    per second. slack: seconds that the most urgent requests have on arrival. params: γ, δ, ε, η of its latency model.
    idle_s: since the last request. met, missed: requests since its start that made, and did not make, their deadline.
    """

    cores: _Cores
    want: _Cores
    curve: Annotated[tuple[tuple[_Size, _Amount], ...], msgspec.Meta(max_length=256)] = ()
    rate: _Amount = 0.0
    queued: _Count = 0
    running: _Count = 0
    coming: _Amount | None = None
    slack: float | None = None
    max_batch: _Count = 1
    rows: _Amount = 1.0
    params: tuple[_Amount, _Amount, _Amount, _Amount] | None = None
    samples: _Count = 0
    idle_s: _Amount | None = None
    met: _Count = 0
    missed: _Count = 0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a pod's proxy is, and the token that it asks for. uid: a pod of the same name is another pod."""

    ip: str
    token: str = field(repr=False)
    uid: str


@dataclass(frozen=True, slots=True)
class News:
    """The last line of a pod and when it came, monotonic seconds."""

    line: Line
    at_s: float


Subscriber = Callable[[Key, Line | None, Line], None]
"""Told (pod, the line before, the new line) as lines come."""


class DemandStreams:
    """All streams. `follow` says which there shall be; must not be called outside a running loop."""

    def __init__(
        self,
        rng: random.Random,
        heard: Subscriber,
        *,
        port: int = ADMIN_PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rng = rng
        self._heard = heard
        self._port = port
        self._clock = clock
        self._streams: dict[Key, _Stream] = {}
        self._connecting = asyncio.Semaphore(CONNECTING)

    def follow(self, pods: Mapping[Key, Address]) -> None:
        """From now on there is a stream to each of these pods and to no other."""
        for key in [key for key, stream in self._streams.items() if pods.get(key) != stream.address]:
            self._streams.pop(key).close()
        for key, address in pods.items():
            if key not in self._streams:
                self._streams[key] = _Stream(key, address, self)

    def news(self, key: Key) -> News | None:
        """What the pod said last; None before its first word."""
        stream = self._streams.get(key)
        return None if stream is None else stream.news

    def counts(self) -> tuple[int, int]:
        """(streams that speak, streams that do not)."""
        now = self._clock()
        live = sum(stream.news is not None and now - stream.news.at_s < SILENCE_S for stream in self._streams.values())
        return live, len(self._streams) - live

    def close(self) -> None:
        """End all streams."""
        self.follow({})


class _Stream:
    """One pod's stream and the task that keeps it open."""

    __slots__ = ("_key", "_owner", "_task", "address", "news")

    def __init__(self, key: Key, address: Address, owner: DemandStreams) -> None:
        self.address = address
        self.news: News | None = None
        self._key = key
        self._owner = owner
        self._task = asyncio.create_task(self._run(), name=f"demand of {key[0]}/{key[1]}")

    def close(self) -> None:
        self._task.cancel()

    def hear(self, text: bytes) -> None:
        """Raises ValueError for what is no line of ours."""
        line = _DECODER.decode(text)
        before = None if self.news is None else self.news.line
        self.news = News(line, self._owner._clock())
        self._owner._heard(self._key, before, line)

    async def _run(self) -> None:
        owner, backoff = self._owner, Backoff(self._owner._rng, 0.1, 5.0)
        loop = asyncio.get_running_loop()
        while True:
            connection: _Connection | None = None
            try:
                async with owner._connecting, asyncio.timeout(_CONNECT_S):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self, backoff.succeeded), self.address.ip, owner._port
                    )
                await connection.ended()
            except (OSError, TimeoutError) as error:
                _log.debug("%s/%s: no demand stream: %s", *self._key, error)
            finally:
                if connection is not None:
                    connection.close()
            await asyncio.sleep(backoff.wait_s())


_DECODER: Final = msgspec.json.Decoder(Line)


class _Connection(asyncio.Protocol):
    """The HTTP of one stream: a request, and an answer whose body never ends while all is well."""

    def __init__(self, stream: _Stream, succeeded: Callable[[], None]) -> None:
        self._stream = stream
        self._succeeded = succeeded
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._heard_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()

    async def ended(self) -> None:
        """Until it is over, for whatever reason."""
        await self._ended

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        address = self._stream.address
        fields = f"host: {bracketed(address.ip)}\r\nauthorization: Bearer {address.token}\r\n"
        transport.write(f"GET /sponge/v1/demand HTTP/1.1\r\n{fields}\r\n".encode())
        self._heard_s = self._loop.time()
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, ValueError) as error:
            _log.debug("demand stream: %s", error)
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.close()

    def on_headers_complete(self) -> None:
        """Of the parser."""
        if (status := self._parser.get_status_code()) != 200:
            raise ValueError(f"the proxy answered {status}")

    def on_body(self, body: bytes) -> None:
        """Of the parser. Of several lines at once only the last is news."""
        if not body.endswith(b"\n"):
            whole, newline, self._rest = (self._rest + body).rpartition(b"\n")
            if len(self._rest) > _LONGEST_LINE:
                raise ValueError("a line is too long")
            if not newline:
                return
        else:
            whole, self._rest = (self._rest + body)[:-1], b""
        self._stream.hear(whole[whole.rfind(b"\n") + 1 :])
        self._succeeded()

    def on_message_complete(self) -> None:
        """Of the parser: the proxy is ending."""
        self.close()

    def _watch(self) -> None:
        left_s = self._heard_s + SILENCE_S - self._loop.time()
        if left_s <= 0:
            self.close()
        else:
            self._watchdog = self._loop.call_later(left_s, self._watch)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def bracketed(ip: str) -> str:
    """An address as URLs and Host fields have it."""
    return f"[{ip}]" if ":" in ip else ip
