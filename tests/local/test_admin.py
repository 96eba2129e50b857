"""The admin client on real sockets: framings, refusals, silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.local.admin import AdminClient, AdminError, Demand, Phase
from tests.local.fake_proxy import Event, FakeProxy

LINE = b'{"v":1,"seq":7,"cores":0.8,"want":1.2,"curve":[[0.4,3.1]],"rate":14.2,"queued":3,"running":1}\n'
DEMAND = Demand(want=1.2, cores=0.8, rate=14.2, queued=3, running=1)


@asynccontextmanager
async def answering(*pieces: bytes, then_hang: bool = False) -> AsyncIterator[AdminClient]:
    """A server that answers any request with these pieces of bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then_hang:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield AdminClient("127.0.0.1", server.sockets[0].getsockname()[1], "t", silence_s=0.2)


async def all_demands(client: AdminClient) -> list[Demand]:
    async with aclosing(client.demands()) as demands:
        return [demand async for demand in demands]


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%X;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"transfer-encoding: Chunked\r\n\r\n" + chunked(LINE + LINE), id="chunked"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n" + chunked(LINE[:9], LINE[9:] + LINE), id="chunked mid-line"),
        pytest.param(b"content-length: %d\r\n\r\n" % (2 * len(LINE)) + LINE * 2, id="length"),
        pytest.param(b"\r\n" + LINE * 2, id="until close"),
        pytest.param(b"\r\n" + LINE + b"\n" + LINE, id="empty line between"),
        pytest.param(
            b"\r\n" + LINE + LINE.replace(b"}", b',"idle_s":0.2,"params":[1,2,3,4],"new":null}'), id="more keys"
        ),
    ],
)
def test_every_framing_gives_the_same_demands(answer: bytes) -> None:
    async def main() -> None:
        async with answering(b"HTTP/1.1 200 OK\r\n" + answer) as client:
            assert await all_demands(client) == [DEMAND, DEMAND]

    asyncio.run(main())


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 200), max_size=5))
def test_where_the_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(LINE[:30], LINE[30:])
    ends = sorted(cuts)
    pieces = [answer[begin:end] for begin, end in zip([0, *ends], [*ends, len(answer)], strict=True)]

    async def main() -> None:
        async with answering(*pieces) as client:
            assert await all_demands(client) == [DEMAND]

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", id="refused"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", id="chunk cut short"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="bad chunk size"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", id="body cut short"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * (1 << 21), id="head without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * (1 << 21), id="line without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello\n", id="not JSON"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n[1]\n", id="not an object"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_else_is_an_admin_error(answer: bytes) -> None:
    async def main() -> None:
        async with answering(answer) as client:
            with pytest.raises(AdminError):
                await all_demands(client)

    asyncio.run(main())


def test_a_silent_stream_is_an_admin_error() -> None:
    async def main() -> None:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        async with answering(head, b"%x\r\n%b\r\n" % (len(LINE), LINE), then_hang=True) as client:
            demands = client.demands()
            assert await anext(demands) == DEMAND
            with pytest.raises(AdminError):
                await anext(demands)

    asyncio.run(main())


def test_nobody_there_is_an_admin_error() -> None:
    async def main() -> None:
        async with answering() as client:
            pass
        with pytest.raises(AdminError):
            await client.put_cores(1.0, Phase.ACTUATED)

    asyncio.run(main())


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"want": 0}, {"want": float("inf")}, {"want": float("nan")}, {"want": None}, {"queued": "many"}],
)
def test_a_demand_that_cannot_be_followed_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AdminError):
        Demand.parse(json.dumps(json.loads(LINE) | change).encode())


def test_fields_of_a_later_proxy_are_ignored() -> None:
    assert Demand.parse(json.dumps(json.loads(LINE) | {"news": 1}).encode()) == DEMAND


def with_fake(check: Callable[[FakeProxy, list[Event]], Awaitable[None]]) -> None:
    async def main() -> None:
        seen: list[Event] = []
        proxy = FakeProxy("secret", seen.append)
        await proxy.start()
        try:
            await check(proxy, seen)
        finally:
            await proxy.close()

    asyncio.run(main())


def test_a_size_is_put_with_its_phase_and_the_token() -> None:
    async def check(proxy: FakeProxy, seen: list[Event]) -> None:
        await AdminClient("127.0.0.1", proxy.port, "secret").put_cores(1.25, Phase.PATCHED)
        assert seen == [("patched", 1.25)]

    with_fake(check)


def test_a_wrong_token_sets_nothing() -> None:
    async def check(proxy: FakeProxy, seen: list[Event]) -> None:
        with pytest.raises(AdminError, match="401"):
            await AdminClient("127.0.0.1", proxy.port, "guess").put_cores(1.25, Phase.PATCHED)
        assert seen == []

    with_fake(check)
