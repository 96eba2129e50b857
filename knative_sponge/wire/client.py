"""The client of one proxy's admin port: tell it a size, listen to its demand, look at its state. A connection per call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Final, cast

from knative_sponge.errors import WireError
from knative_sponge.wire.cores import CoresMessage, encode_cores
from knative_sponge.wire.demand import DemandLine
from knative_sponge.wire.http import CORES_PATH, DEMAND_PATH, STATE_PATH, AnswerReader, request
from knative_sponge.wire.state import ProxyState, decode_state
from knative_sponge.wire.stream import DemandReader

_CONNECT_S: Final = 3.0
_LARGEST_BODY: Final = 64 * 1024
_PIECE: Final = 1024
_WINDOW_S: Final = 0.1
_MOST_IN_WINDOW: Final = 32 * 1024
"""Bytes that one call reads in _WINDOW_S; more have to wait. A proxy says less by an order of magnitude. What floods a stream
holds up its own only, and no other work of this event loop by more than a piece at a time."""


class AdminClient:
    """Of one proxy. Every method raises WireError when the proxy cannot be reached or does not answer as agreed."""

    def __init__(
        self, host: str, port: int, token: str | None = None, *, reply_s: float = 2.0, silence_s: float = 5.0
    ) -> None:
        """token: None where only the state is asked for. reply_s: until a whole answer is there, the connection included.
        silence_s: a demand stream that says nothing for so long is dead; a proxy speaks every second."""
        self._host = host
        self._port = port
        self._token = token
        self._reply_s = reply_s
        self._silence_s = silence_s

    async def put_cores(self, message: CoresMessage) -> None:
        """Tell the proxy its size."""
        await self._ask("PUT", CORES_PATH, 204, encode_cores(message))

    async def state(self) -> ProxyState:
        """How it is now."""
        return decode_state(await self._ask("GET", STATE_PATH, 200))

    async def listen(
        self,
        heard: Callable[[DemandLine], None],
        *,
        connecting: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        """Call `heard` with each demand until the proxy ends the stream. Of several that come together only the newest counts.

        connecting: held while the connection is made. Silence is a WireError, but not while this event loop was held up.
        """
        reader = DemandReader()

        def take(data: bytes) -> bool:
            if (line := reader.feed(data)) is not None:
                heard(line)
            return reader.ended

        with self._call("GET", DEMAND_PATH, b"", take, reader.finish) as call:
            async with connecting or nullcontext(), asyncio.timeout(_CONNECT_S):
                await self._connect(call)
            call.watch(self._silence_s)
            await call.over

    async def _ask(self, method: str, path: str, expected: int, body: bytes = b"") -> bytes:
        """The body of the whole answer."""
        reader, answer = AnswerReader(expected), bytearray()

        def take(data: bytes) -> bool:
            answer.extend(reader.feed(data))
            if len(answer) > _LARGEST_BODY:
                raise WireError(f"a body of more than {_LARGEST_BODY} bytes")
            return reader.ended

        with self._call(method, path, body, take, reader.finish) as call:
            async with asyncio.timeout(self._reply_s):
                await self._connect(call)
                await call.over
        return bytes(answer)

    @contextmanager
    def _call(
        self, method: str, path: str, body: bytes, take: Callable[[bytes], bool], finish: Callable[[], None]
    ) -> Iterator[_Call]:
        """A call to be made and waited for inside the block, which ends it and whose errors become WireErrors."""
        try:
            call = _Call(request(method, path, self._host, self._port, self._token, body), take, finish)
            try:
                yield call
            finally:
                call.close()
        except WireError as error:
            raise WireError(f"{method} {path}: {error}", status=error.status) from error
        except (OSError, ValueError) as error:
            raise WireError(f"{method} {path}: {str(error) or type(error).__name__}") from error

    async def _connect(self, call: _Call) -> None:
        await asyncio.get_running_loop().create_connection(lambda: call, self._host, self._port)


class _Call(asyncio.BufferedProtocol):
    """One request and its answer, whose pieces go to `take` until it returns that this was the last one.

    finish: asked, when the connection is closed before, whether that may be. Both may raise WireError.
    """

    __slots__ = (
        "_buffer", "_doubted", "_finish", "_heard_s", "_loop", "_pause", "_read", "_request", "_silence_s", "_take", "_timer",
        "_transport", "_window_s", "over",
    )  # fmt: skip

    def __init__(self, request: bytes, take: Callable[[bytes], bool], finish: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done with the answer's end, or the WireError that it is."""
        self._request = request
        self._take = take
        self._finish = finish
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._buffer = memoryview(bytearray(_PIECE))
        self._window_s = 0.0
        self._read = 0
        """Bytes since the window began."""
        self._silence_s = 0.0
        self._heard_s = 0.0
        self._doubted = False

    def watch(self, silence_s: float) -> None:
        """From now on silence of so many seconds is the end."""
        self._silence_s = silence_s
        self._heard_s = self._loop.time()
        self._look()

    def close(self) -> None:
        """Leave, whatever was still to come."""
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no instance of it
        self._transport.write(self._request)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        if self.over.done():
            return
        self._heard_s = self._loop.time()
        try:
            ended = self._take(bytes(self._buffer[:size]))
        except WireError as error:
            self._fail(error)
        else:
            if ended:
                self.over.set_result(None)
            else:
                self._keep_pace(size)

    def connection_lost(self, error: Exception | None) -> None:
        if self.over.done():
            return
        try:
            self._finish()
        except WireError as early:
            self._fail(early if error is None else WireError(str(error)))
        else:
            self.over.set_result(None)

    def _keep_pace(self, size: int) -> None:
        now = self._heard_s
        if now >= self._window_s + _WINDOW_S:
            self._window_s, self._read = now, 0
        self._read += size
        if self._read >= _MOST_IN_WINDOW and self._transport is not None:
            self._transport.pause_reading()
            self._pause = self._loop.call_at(self._window_s + _WINDOW_S, self._transport.resume_reading)

    def _look(self) -> None:
        """Give up at the second look at a silence: what came while this event loop was held up is read between the two."""
        now = self._loop.time()
        if now < self._heard_s + self._silence_s:
            self._doubted = False
            self._timer = self._loop.call_at(self._heard_s + self._silence_s, self._look)
        elif not self._doubted:
            self._doubted = True
            self._timer = self._loop.call_at(now + self._silence_s / 5, self._look)
        elif not self.over.done():
            self._fail(WireError(f"silent for {self._silence_s:g} s"))

    def _fail(self, error: WireError) -> None:
        self.over.set_exception(error)
        self.over.exception()  # whoever has given up does not ask for it
