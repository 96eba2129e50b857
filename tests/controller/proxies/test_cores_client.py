"""Telling a proxy its size: what goes over the wire, and what counts as heard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from knative_sponge.controller.proxies import cores_client as tell
from knative_sponge.controller.proxies.cores_client import CoresClient
from knative_sponge.controller.proxies.demand_streams import Address
from knative_sponge.wire.cores import Phase
from tests.controller.revision_kit import run

TO = Address("127.0.0.1", "t-1", "u-1")
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
    return head, await reader.readexactly(length)


@asynccontextmanager
async def _proxy(serve: Serve) -> AsyncIterator[CoresClient]:
    async def close_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(close_after, "127.0.0.1", 0)
    async with server:
        yield CoresClient(server.sockets[0].getsockname()[1])


def _answering(*parts: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


def test_the_proxy_gets_size_phase_reach_and_token() -> None:
    seen: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await _request(reader))
        writer.write(TAKEN)

    async def body() -> None:
        async with _proxy(serve) as teller:
            assert await teller.tell(TO, Phase.PATCHED, 1.23456, 1.0)

    run(body())
    ((head, sent),) = seen
    assert head.startswith("PUT /sponge/v1/cores HTTP/1.1\r\n")
    assert "authorization: Bearer t-1\r\n" in head
    assert json.loads(sent) == {"cores": 1.235, "phase": "patched", "reach": 1.235}


@pytest.mark.parametrize(
    ("parts", "heard"),
    [
        pytest.param((TAKEN,), True, id="taken"),
        pytest.param((b"HTTP/1.1 2", b"04 No Content\r", b"\n\r\n"), True, id="taken, in pieces"),
        pytest.param((b"HTTP/1.1 401 Unauthorized\r\n\r\n",), False, id="another token"),
        pytest.param((b"SSH-2.0-OpenSSH_9.9\r\n",), False, id="something else listens"),
        pytest.param((b"x" * 5000,), False, id="a line without end"),
        pytest.param((), False, id="closed without an answer"),
    ],
)
def test_only_a_204_counts_as_heard(parts: tuple[bytes, ...], heard: bool) -> None:
    async def body() -> None:
        async with _proxy(_answering(*parts)) as teller:
            assert await teller.tell(TO, Phase.ACTUATED, 1.0, 2.0) is heard

    run(body())


def test_a_proxy_that_is_not_there_or_says_nothing_was_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tell, "_REPLY_S", 0.05)
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()  # until the caller leaves
        left.set()

    async def body() -> None:
        async with _proxy(silent) as teller:
            assert not await teller.tell(TO, Phase.PATCHED, 1.0, 2.0)
            await left.wait()
        assert not await teller.tell(TO, Phase.PATCHED, 1.0, 2.0)

    run(body())


def test_all_pods_told_at_once_take_turns_and_none_runs_out_of_time_while_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tell, "_AT_ONCE", 4)
    present, most = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await _request(reader)
        writer.write(TAKEN)
        present -= 1

    async def body() -> None:
        async with _proxy(serve) as teller:
            assert all(await asyncio.gather(*(teller.tell(TO, Phase.PATCHED, 1.0, 2.0) for _ in range(50))))
        assert most <= 4

    run(body())
