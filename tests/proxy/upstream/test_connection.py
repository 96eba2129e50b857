"""The upstream connection without sockets: what one exchange leaves behind, and when it stops reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from knative_sponge.errors import UpstreamBroken
from knative_sponge.proxy.upstream.connection import HIGH_WATER, Connection
from tests.proxy.harness import ok, on_loop


class FakeTransport(asyncio.Transport):
    """Remembers what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.calls: list[str] = []

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "abort" in self.calls


def connected() -> tuple[Connection, FakeTransport]:
    transport = FakeTransport()
    connection = Connection(asyncio.get_running_loop(), lambda _connection: None)
    connection.connection_made(transport)
    return connection, transport


def ask(connection: Connection, method: str = "GET") -> None:
    connection.begin(method)
    connection.write(b"request")
    connection.sent = True


@on_loop
async def test_an_answer_nobody_took_is_not_the_next_exchanges_answer() -> None:
    """A client may leave in the very turn of the loop in which its answer is complete."""
    connection, _ = connected()
    ask(connection)
    connection.data_received(b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + ok(b"secret", b"X-Secret: 1"))
    assert connection.finish(), "the connection itself is in order"
    ask(connection)
    assert not connection.complete
    connection.data_received(ok(b"other"))
    await connection.head()
    assert connection.informational == []
    assert connection.headers == [(b"content-length", b"5")]
    assert connection.take() == b"other"
    assert connection.complete


def unsent(connection: Connection) -> None:
    connection.begin("POST")
    connection.data_received(ok())


def unfinished(connection: Connection) -> None:
    ask(connection)
    connection.data_received(ok(b"hello")[:-1])


def head_only(connection: Connection) -> None:
    ask(connection, "HEAD")
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")


def closing(connection: Connection) -> None:
    ask(connection)
    connection.data_received(ok(b"x", b"Connection: close"))


def old(connection: Connection) -> None:
    ask(connection)
    connection.data_received(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")


def unbounded(connection: Connection) -> None:
    ask(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nbody")
    connection.eof_received()


def lost(connection: Connection) -> None:
    ask(connection)
    connection.data_received(ok())
    connection.connection_lost(None)


@pytest.mark.parametrize("exchange", [unsent, unfinished, head_only, closing, old, unbounded])
@on_loop
async def test_a_connection_that_may_be_out_of_step_is_cut_and_not_reused(
    exchange: Callable[[Connection], None],
) -> None:
    connection, transport = connected()
    exchange(connection)
    assert not connection.finish()
    assert transport.calls == ["abort"]


@on_loop
async def test_a_lost_connection_is_not_reused() -> None:
    connection, _ = connected()
    lost(connection)
    assert not connection.finish()


@on_loop
async def test_an_answer_that_nobody_takes_stops_the_reading_until_it_is_taken() -> None:
    connection, transport = connected()
    ask(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (HIGH_WATER * 4))
    connection.data_received(b"x" * HIGH_WATER)
    assert transport.calls == []
    connection.data_received(b"x")
    assert transport.calls == ["pause"]
    assert len(connection.take()) == HIGH_WATER + 1
    assert transport.calls == ["pause", "resume"]


@on_loop
async def test_a_failure_known_before_the_head_was_looked_at_hides_the_head() -> None:
    connection, _ = connected()
    ask(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    connection.connection_lost(ConnectionResetError(104, "reset"))
    with pytest.raises(UpstreamBroken, match="reset"):
        await connection.head()


@on_loop
async def test_an_exchange_on_a_connection_already_lost_fails() -> None:
    connection, transport = connected()
    connection.connection_lost(None)
    ask(connection)
    assert transport.written == b""
    with pytest.raises(UpstreamBroken):
        await connection.head()
