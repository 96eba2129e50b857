"""TLS connections whose handshake never ends: they cost little, and nobody waits for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.hostile.controller_process import HONEST, answered, controller_process, over_tls
from tests.hostile.proxy_process import MeasuredProcess, proxy_process
from tests.proxy.harness import answering as script
from tests.proxy.harness import ok, on_loop
from tests.proxy.http.test_tls import OLD, tls_client, tls_proxy
from tests.proxy.wire import LOCAL

Target = tuple[MeasuredProcess, int, Callable[[], int]]
MIB = 2**20
MANY = 1000
MOST = 24 * MIB
"""What they may add to a process; before, 1,000 of them added 52 to 92 MiB."""
PART_OF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)


@contextmanager
def silent(port: int, said: bytes, count: int = MANY) -> Iterator[None]:
    """So many connections of one stranger on which no handshake is finished."""
    with ExitStack() as stack:
        for _ in range(count):
            with suppress(OSError):
                one = stack.enter_context(socket.create_connection((LOCAL, port), timeout=10))
                one.sendall(said)
        yield


@contextmanager
def proxy(folder: Path) -> Iterator[Target]:
    """The process, its TLS port, and an honest request's status."""
    with proxy_with(folder) as found:
        yield found


@contextmanager
def proxy_with(folder: Path, files: int | None = None) -> Iterator[Target]:
    OLD.write(folder)
    with socket.create_server((LOCAL, 0)) as free:
        port = free.getsockname()[1]
    with proxy_process(files=files, SPONGE_CERTIFICATES=str(folder), QUEUE_SERVING_TLS_PORT=str(port)) as process:

        def ask() -> int:
            plain = socket.create_connection((LOCAL, port), timeout=10, source_address=(HONEST, 0))
            return answered(over_tls(plain), "GET", "/10")

        yield process, port, ask


@contextmanager
def controller(folder: Path) -> Iterator[Target]:
    """The same of the webhook."""
    with controller_process(folder) as process:
        yield process, process.webhook_port, process.review


@pytest.mark.parametrize("said", [b"", PART_OF_A_HELLO], ids=["nothing said", "half a hello"])
@pytest.mark.parametrize("target", [proxy, controller])
def test_handshakes_that_never_end_cost_little_and_others_are_served(
    target: Callable[[Path], AbstractContextManager[Target]], said: bytes, tmp_path: Path
) -> None:
    with target(tmp_path) as (process, port, ask):
        assert ask() == 200
        process.settle()
        before = process.rss()
        with silent(port, said):
            assert ask() == 200
            process.settle()
            assert process.rss() - before < MOST
            with silent(port, said, 100):
                assert ask() == 200


@pytest.mark.parametrize("said", [b"", PART_OF_A_HELLO], ids=["nothing said", "half a hello"])
def test_they_take_no_file_that_others_need_and_nothing_spins(said: bytes, tmp_path: Path) -> None:
    with proxy_with(tmp_path, files=256) as (process, port, ask), silent(port, said):
        assert ask() == 200
        process.settle()
        before_s = process.cpu_s()
        process.settle()
        assert process.cpu_s() - before_s < 0.1


@on_loop
async def test_a_crowd_of_honest_clients_of_one_address_is_served(tmp_path: Path) -> None:
    """An activator opens as many connections at once as requests have come to it."""
    async with tls_proxy(tmp_path, script(ok(b"app"))) as servers:

        async def ask() -> bytes:
            async with tls_client(servers) as one:
                return (await one.get()).body

        assert set(await asyncio.gather(*(ask() for _ in range(150)))) == {b"app"}
