"""What every proxy asks for, kept up to date: one stream of JSON lines per pod (docs/design.md §5.2); nothing is decided here.

A stream that ends is opened again after a growing wait, one that says nothing for SILENCE_S is dead. What was heard last is
kept with its time: how old news may be is the reader's to judge. At most CONNECTING connections are being made at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import httptools
import msgspec

from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.proxies.batched_reader import BatchedReader
from knative_sponge.core.backoff import Backoff

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
    per second. slack: seconds that the most urgent requests have on arrival. params: γ, δ, ε, η of its latency model; cost:
    the same of what batches cost (`core/latency/credit.py`). idle_s: since the last request. met, missed: requests since
    its start that made, and did not make, their deadline.
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
    cost: tuple[_Amount, _Amount, _Amount, _Amount] | None = None
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
        self._intake = BatchedReader()
        self._watchdog: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        """When silence is looked for next, by the loop's clock."""

    def follow(self, pods: Mapping[Key, Address]) -> None:
        """From now on there is a stream to each of these pods and to no other."""
        for key in [key for key, stream in self._streams.items() if pods.get(key) != stream.address]:
            self._streams.pop(key).close()
        for key, address in pods.items():
            if key not in self._streams:
                self._streams[key] = _Stream(key, address, self)
        if self._watchdog is None:
            self._look_for_silence()

    def news(self, key: Key) -> News | None:
        """What the pod said last; None before its first word."""
        stream = self._streams.get(key)
        return None if stream is None or stream.line is None else News(stream.line, stream.at_s)

    def counts(self) -> tuple[int, int]:
        """(streams that speak, streams that do not)."""
        since_s = self._clock() - SILENCE_S
        live = sum(stream.line is not None and stream.at_s > since_s for stream in self._streams.values())
        return live, len(self._streams) - live

    def close(self) -> None:
        """End all streams."""
        self.follow({})

    def _look_for_silence(self) -> None:
        """Give up what is dead, again and again while there are streams. When this loop itself was held up, nobody is."""
        self._watchdog = None
        if not self._streams:
            return
        loop = asyncio.get_running_loop()
        period_s, now = SILENCE_S / 5, loop.time()
        if now < self._due_s + period_s:
            for stream in self._streams.values():
                if stream.connection is not None and stream.connection.heard_s <= now - SILENCE_S:
                    stream.connection.close()
        self._due_s = now + period_s
        self._watchdog = loop.call_later(period_s, self._look_for_silence)


class _Stream:
    """One pod's stream and the task that keeps it open."""

    __slots__ = ("_key", "_owner", "_task", "address", "at_s", "connection", "line")

    def __init__(self, key: Key, address: Address, owner: DemandStreams) -> None:
        self.address = address
        self.line: Line | None = None
        """What the pod said last."""
        self.at_s = 0.0
        """When."""
        self.connection: _Connection | None = None
        self._key = key
        self._owner = owner
        self._task = asyncio.create_task(self._run(), name=f"demand of {key[0]}/{key[1]}")

    def close(self) -> None:
        self._task.cancel()

    def hear(self, text: bytes) -> None:
        """Raises ValueError for what is no line of ours."""
        owner, before = self._owner, self.line
        self.line = line = _DECODER.decode(text)
        self.at_s = owner._clock()
        owner._heard(self._key, before, line)

    async def _run(self) -> None:
        owner, backoff = self._owner, Backoff(0.1, 5.0, self._owner._rng.random)
        while True:
            try:
                async with owner._connecting, asyncio.timeout(_CONNECT_S):
                    sock = await self._ask()
                self.connection = _Connection(self, sock, owner._intake, backoff.succeeded)
                await self.connection.ended()
            except (OSError, TimeoutError, ValueError) as error:
                _log.debug("%s/%s: no demand stream: %s", *self._key, error)
            finally:
                if self.connection is not None:
                    self.connection.close()
                    self.connection = None
            await asyncio.sleep(backoff.wait_s())

    async def _ask(self) -> socket.socket:
        """A connection on which the proxy was asked for its demand."""
        ip, loop = self.address.ip, asyncio.get_running_loop()
        fields = f"host: {bracketed(ip)}\r\nauthorization: Bearer {self.address.token}\r\n"
        sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, (ip, self._owner._port))
            await loop.sock_sendall(sock, f"GET /sponge/v1/demand HTTP/1.1\r\n{fields}\r\n".encode())
        except BaseException:
            sock.close()
            raise
        return sock


_DECODER: Final = msgspec.json.Decoder(Line)


class _Connection:
    """The HTTP of one stream: an answer whose body never ends while all is well."""

    __slots__ = ("_ended", "_intake", "_loop", "_parser", "_rest", "_socket", "_stream", "_succeeded", "heard_s")

    def __init__(
        self, stream: _Stream, sock: socket.socket, intake: BatchedReader, succeeded: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.heard_s = self._loop.time()
        """When anything came last, by the loop's clock."""
        self._stream = stream
        self._socket = sock
        self._intake = intake
        self._succeeded = succeeded
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self._ended = self._loop.create_future()
        intake.add(sock, self._take)

    async def ended(self) -> None:
        """Until it is over, for whatever reason."""
        await self._ended

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._intake.remove(self._socket)
            self._socket.close()
        if not self._ended.done():
            self._ended.set_result(None)

    def _take(self, data: bytes) -> None:
        self.heard_s = self._loop.time()
        if not data:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, ValueError) as error:
            _log.debug("demand stream: %s", error)
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


def bracketed(ip: str) -> str:
    """An address as URLs and Host fields have it."""
    return f"[{ip}]" if ":" in ip else ip
