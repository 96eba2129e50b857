"""Nobody can make the proxy hold more than its budget: not with bodies, heads, pipelined requests, nor by not reading.

Bound: 64 MiB over the budget, for the process itself and what is copied for a moment.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tests.hostile.proxy_process import PREDICT, ProxyProcess, proxy_process
from tests.proxy.wire import LOCAL

MIB = 2**20
BUDGET = 48 * MIB
MOST = BUDGET + 64 * MIB
BODY = b'{"instances": [[' + b"0.125, " * (8 * MIB // 7) + b"1]]}"
POST = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nx-sponge-slo-ms: 100000\r\n".encode()
GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


class Crowd:
    """Connections of one client to the proxy, which it keeps."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self._port = proxy.port
        self._sockets: list[socket.socket] = []
        self._loop = asyncio.get_running_loop()

    async def connect(self) -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        self._sockets.append(one)
        await self._loop.sock_connect(one, (LOCAL, self._port))
        return one

    async def send(self, *pieces: bytes) -> socket.socket:
        """A new connection on which so much is sent as is taken within a while."""
        one = await self.connect()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(3):
                for piece in pieces:
                    await self._loop.sock_sendall(one, piece)
        return one

    async def status(self, one: socket.socket) -> bytes:
        """The beginning of an answer, as far as there is one; nothing after a reset."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.2):
                return await self._loop.sock_recv(one, 1024)
        return b""

    def close(self) -> None:
        for one in self._sockets:
            one.close()


async def queued_bodies(crowd: Crowd) -> list[socket.socket]:
    head = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)
    return await asyncio.gather(*(crowd.send(head, BODY) for _ in range(60)))


async def unfinished_bodies(crowd: Crowd) -> None:
    head = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    await asyncio.gather(
        *(crowd.send(head, BODY[: 4 * MIB]) for _ in range(30)),
        *(crowd.send(chunked, b"%x\r\n" % len(BODY), BODY[: 4 * MIB]) for _ in range(30)),
    )


async def unfinished_heads(crowd: Crowd) -> None:
    fields = b"".join(b"x-%d: %b\r\n" % (number, b"a" * 280) for number in range(200))
    await asyncio.gather(*(crowd.send(b"GET / HTTP/1.1\r\nHost: a\r\n", fields) for _ in range(300)))


async def pipelined_requests(crowd: Crowd) -> None:
    held = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
    await asyncio.gather(*(crowd.send(held, (GET % 10) * 10_000) for _ in range(60)))


async def answers_nobody_reads(crowd: Crowd) -> None:
    await asyncio.gather(*(crowd.send((GET % (16 * MIB)) * 4) for _ in range(60)))


async def merged_answers_nobody_reads(crowd: Crowd) -> None:
    head = POST.replace(b":predict", b":predict?%d" % (4 * MIB)) + b"Content-Length: 18\r\n\r\n"
    await asyncio.gather(*(crowd.send(head, b'{"instances": [0]}') for _ in range(60)))


@asynccontextmanager
async def crowd(proxy: ProxyProcess) -> AsyncIterator[Crowd]:
    one = Crowd(proxy)
    try:
        yield one
    finally:
        one.close()


Attack = Callable[[Crowd], Awaitable[object]]
ATTACKS: tuple[Attack, ...] = (
    queued_bodies, unfinished_bodies, unfinished_heads, pipelined_requests, answers_nobody_reads,
    merged_answers_nobody_reads,
)  # fmt: skip


@pytest.mark.parametrize(
    "attacks",
    [*((attack,) for attack in ATTACKS), ATTACKS, tuple(reversed(ATTACKS))],
    ids=[*(attack.__name__ for attack in ATTACKS), "all at once", "all at once, answers first"],
)
def test_memory_stays_within_the_budget_and_a_probe_is_answered(attacks: tuple[Attack, ...]) -> None:
    with proxy_process(SPONGE_SLO="5s", SPONGE_MEMORY_BUDGET=str(BUDGET)) as proxy:
        held = attacks != (merged_answers_nobody_reads,)
        if held:
            proxy.model.go.clear()

        async def run() -> None:
            async with crowd(proxy) as one:
                for attack in attacks:
                    await attack(one)
                    await asyncio.to_thread(proxy.settle)
                    assert await asyncio.to_thread(proxy.probe) < 1.0
                assert proxy.peak_rss() <= MOST

        asyncio.run(run())


def test_who_finds_no_room_is_told_when_to_come_again() -> None:
    with proxy_process(SPONGE_SLO="5s", SPONGE_MEMORY_BUDGET=str(BUDGET)) as proxy:
        proxy.model.go.clear()

        async def run() -> None:
            async with crowd(proxy) as one:
                answers = await asyncio.gather(*(one.status(each) for each in await queued_bodies(one)))
                refused = [answer for answer in answers if answer]
                assert refused
                for answer in refused:
                    assert answer.startswith(b"HTTP/1.1 503 ")
                    assert b"\r\nsponge-reason: queue-full\r\n" in answer
                    assert b"\r\nretry-after: 1\r\n" in answer

        asyncio.run(run())
        proxy.model.go.set()
        assert proxy.predict() == 200, "what was held has been given back"
