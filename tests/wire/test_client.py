"""The admin client on real sockets: sizes out, demands in, states; refusals, silence and nobody there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from knative_sponge.errors import WireError
from knative_sponge.wire import client as client_module
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.cores import CoresMessage, Phase
from knative_sponge.wire.demand import DemandLine, encode_demand
from knative_sponge.wire.state import CoresState, ProxyState, encode_state
from tests.controller.admission.webhook_kit import LOOPS
from tests.local.fake_proxy import Event, FakeProxy

FIRST, LAST = DemandLine(cores=0.8, want=1.2), DemandLine(cores=0.8, want=1.5, queued=3)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LEAST = encode_state(ProxyState(cores=CoresState(now=1.0, want=2.0), model={}))
SIZE = CoresMessage(1.25, Phase.PATCHED)

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's coroutine on each kind of event loop."""

    def on_loop(body: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await body

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return on_loop


@asynccontextmanager
async def answering(*pieces: bytes, then_hang: bool = False, **client: float) -> AsyncIterator[AdminClient]:
    """A server that answers any request with these pieces of bytes."""
    serving: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if then_hang:
                await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(answer(reader, writer)))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield AdminClient("127.0.0.1", server.sockets[0].getsockname()[1], "t", **client)
    await asyncio.gather(*serving)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CHUNKED + chunk(encode_demand(FIRST) + encode_demand(LAST)) + chunk(b""), id="chunked"),
        pytest.param(
            CHUNKED + chunk(encode_demand(FIRST)[:9]) + chunk(encode_demand(FIRST)[9:] + encode_demand(LAST)) + chunk(b""),
            id="chunked in mid-line",
        ),
        pytest.param(OK + b"\r\n" + encode_demand(FIRST) + encode_demand(LAST), id="until close"),
        pytest.param(OK + b"\r\n" + encode_demand(FIRST) + b"\n" + encode_demand(LAST) + b"\r\n\n", id="empty lines"),
    ],
)  # fmt: skip
def test_of_demands_that_come_together_the_newest_is_heard(answer: bytes, run: Run) -> None:
    async def body() -> None:
        heard: list[DemandLine] = []
        async with answering(answer) as client:
            await client.listen(heard.append)
        assert heard[-1] == LAST
        assert set(heard) <= {FIRST, LAST}

    run(body())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", id="refused"),
        pytest.param(CHUNKED + b"5\r\nab", id="chunk cut short"),
        pytest.param(CHUNKED + chunk(encode_demand(FIRST)), id="stream cut short"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="not HTTP"),
        pytest.param(OK + b"\r\n" + b"y" * (1 << 17), id="line without end"),
        pytest.param(OK + b"\r\nhello\n", id="no demand"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_stream_that_is_none_ends_with_an_error(answer: bytes, run: Run) -> None:
    async def body() -> None:
        async with answering(answer) as client:
            with pytest.raises(WireError, match=r"GET /sponge/v1/demand: ."):
                await client.listen(lambda _: None)

    run(body())


def test_a_silent_stream_ends_with_an_error(run: Run) -> None:
    async def body() -> None:
        heard: list[DemandLine] = []
        async with answering(CHUNKED, chunk(encode_demand(FIRST)), then_hang=True, silence_s=0.2) as client:
            with pytest.raises(WireError, match=r"silent for 0\.2 s"):
                await client.listen(heard.append)
        assert heard == [FIRST]

    run(body())


def test_who_stops_listening_leaves(run: Run) -> None:
    async def body() -> None:
        proxy = FakeProxy("t", lambda _: None)
        await proxy.start()
        first = asyncio.Event()
        listening = asyncio.create_task(AdminClient("127.0.0.1", proxy.port, "t").listen(lambda _: first.set()))
        await first.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        while proxy.listeners:
            await asyncio.sleep(0)
        await proxy.close()

    run(body())


def test_the_state_of_a_proxy_is_read(run: Run) -> None:
    state = ProxyState(cores=CoresState(now=1.0, want=2.0), model={"version": 1})
    text = encode_state(state)

    async def body() -> None:
        async with answering(
            OK, b"content-length: %d\r\n\r\n" % len(text), text[:5], text[5:], then_hang=True
        ) as client:
            assert await client.state() == state

    run(body())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK + b"content-length: 2\r\n\r\n{}", id="no state"),
        pytest.param(OK + b"\r\n" + LEAST + b" " * 70_000, id="more than a state can be"),
        pytest.param(b"HTTP/1.1 302 Found\r\nlocation: /sponge/v1/state\r\n\r\n", id="elsewhere"),
    ],
)
def test_what_is_no_state_is_an_error(answer: bytes, run: Run) -> None:
    async def body() -> None:
        async with answering(answer) as client:
            with pytest.raises(WireError):
                await client.state()

    run(body())


def test_who_does_not_answer_in_time_is_given_up(run: Run) -> None:
    async def body() -> None:
        async with answering(b"HTTP/1.1 204 No Content\r\n", then_hang=True, reply_s=0.05) as client:
            with pytest.raises(WireError, match="TimeoutError") as caught:
                await client.put_cores(SIZE)
            assert caught.value.status == 0

    run(body())


def test_nobody_there_is_an_error(run: Run) -> None:
    async def body() -> None:
        async with answering() as client:
            pass
        with pytest.raises(WireError):
            await client.put_cores(SIZE)
        with pytest.raises(WireError):
            await client.listen(lambda _: None)

    run(body())


def test_a_size_is_put_with_its_phase_and_the_token(run: Run) -> None:
    async def body() -> None:
        seen: list[Event] = []
        proxy = FakeProxy("secret", seen.append)
        await proxy.start()
        await AdminClient("127.0.0.1", proxy.port, "secret").put_cores(SIZE)
        assert seen == [("patched", 1.25)]
        for guess in ("guess", None, "a\r\nb"):
            with pytest.raises(WireError) as caught:
                await AdminClient("127.0.0.1", proxy.port, guess).put_cores(SIZE)
            assert caught.value.status == (0 if guess == "a\r\nb" else 401)
        assert seen == [("patched", 1.25)]
        await proxy.close()

    run(body())


def test_a_flood_waits_and_is_read_no_faster_than_allowed(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(client_module, "_WINDOW_S", 3600.0)
    lines = [encode_demand(DemandLine(cores=1.0, want=1.0, seq=number)) for number in range(4000)]
    heard: list[int] = []

    async def body() -> None:
        async with answering(CHUNKED, *map(chunk, lines), then_hang=True) as client:
            listening = asyncio.create_task(client.listen(lambda line: heard.append(line.seq)))
            while not heard:
                await asyncio.sleep(0)
            for _ in range(2000):
                await asyncio.sleep(0)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    run(body())
    assert heard[-1] * len(lines[0]) < 64 * 1024 < len(lines) * len(lines[0])


def test_what_waited_is_read_when_its_time_comes(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(client_module, "_WINDOW_S", 0.01)
    monkeypatch.setattr(client_module, "_MOST_IN_WINDOW", 100)
    lines = [encode_demand(DemandLine(cores=1.0, want=1.0, seq=number)) for number in range(400)]
    heard: list[int] = []

    async def body() -> None:
        async with answering(CHUNKED, *map(chunk, lines), b"0\r\n\r\n") as client:
            await client.listen(lambda line: heard.append(line.seq))

    run(body())
    assert heard[-1] == 399


def test_chunks_of_hardly_any_bytes_end_the_stream(run: Run) -> None:
    async def body() -> None:
        async with answering(CHUNKED, chunk(b" ") * 2000, then_hang=True) as client:
            with pytest.raises(WireError, match="too many chunks"):
                await client.listen(lambda _line: None)

    run(body())
