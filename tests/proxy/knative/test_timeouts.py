"""The revision's timeouts, in virtual time; and that a real connection is cut at both ends when time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from knative_sponge.asgi import Message, Receive, Scope, Send
from knative_sponge.errors import UpstreamTimeout
from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.knative.timeouts import Timeouts
from tests.proxy.harness import model_server, on_loop, proxy, serving, until
from tests.proxy.wire import Wire, client
from tests.virtual_time import run_virtual

Run = Callable[[Timeouts], Coroutine[Any, Any, Any]]


def pieces(*gaps_s: float) -> Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]:
    """An application that sends a piece after each of these pauses."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for gap_s in gaps_s:
            await asyncio.sleep(gap_s)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    return app


def outcome(
    *gaps_s: float, total_s: float = 1000.0, start_s: float | None = None, idle_s: float | None = None
) -> tuple[float, int, bool]:
    """When it ended, how many pieces were sent, and whether it was cut off."""

    async def scenario() -> tuple[float, int, bool]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            raise AssertionError

        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        layer = Timeouts(pieces(*gaps_s), total_s=total_s, start_s=start_s, idle_s=idle_s)
        said: tuple[str, int] | None = None
        try:
            await layer({}, receive, send)
        except UpstreamTimeout as failure:
            said = str(failure), failure.status
        return round(loop.time() - begun_s, 6), len(sent), said == ("request timeout", 504)

    return run_virtual(scenario)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(outcome(1.0, total_s=2.0), (1.0, 1, False), id="in time"),
        pytest.param(outcome(3.0, total_s=2.0), (2.0, 0, True), id="total, silent"),
        pytest.param(outcome(1.0, 1.5, total_s=2.0), (2.0, 1, True), id="total, in mid-answer"),
        pytest.param(outcome(0.5, total_s=0.0), (0.0, 0, True), id="total of nothing"),
        pytest.param(outcome(3.0, start_s=2.0), (2.0, 0, True), id="start, silent"),
        pytest.param(outcome(1.0, 5.0, start_s=2.0), (6.0, 2, False), id="start, only the first piece counts"),
        pytest.param(outcome(0.5, 0.5, 0.5, idle_s=1.0), (1.5, 3, False), id="idle, moving"),
        pytest.param(outcome(0.5, 2.0, idle_s=1.0), (1.5, 1, True), id="idle, stuck"),
        pytest.param(outcome(2.0, idle_s=1.0), (1.0, 0, True), id="idle, before the first piece"),
        pytest.param(outcome(3.0, total_s=2.0, start_s=1.0, idle_s=1.5), (1.0, 0, True), id="the first of three"),
    ],
)
def test_each_timer_bounds_what_it_should(result: tuple[float, int, bool], expected: tuple[float, int, bool]) -> None:
    assert result == expected


def test_requests_expire_each_at_its_own_time() -> None:
    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        ended: list[float] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(scope["takes_s"])

        layer = Timeouts(app, total_s=10.0, start_s=None, idle_s=None)

        async def one(at_s: float, takes_s: float) -> None:
            await asyncio.sleep(at_s)
            try:
                await layer({"takes_s": takes_s}, None, None)  # type: ignore[arg-type]
            except UpstreamTimeout:
                ended.append(loop.time() - begun_s - at_s)

        plan = [(0.0, 99.0), (1.0, 2.0), (3.0, 99.0), (3.0, 99.0), (20.0, 1.0), (40.0, 99.0)]
        await asyncio.gather(*(one(*each) for each in plan))
        return [round(each, 6) for each in ended]

    assert run_virtual(scenario) == [10.0] * 4


def test_a_cancellation_from_outside_stays_one() -> None:
    async def scenario() -> None:
        layer = Timeouts(pieces(5.0), total_s=10.0, start_s=None, idle_s=None)
        task = asyncio.ensure_future(layer({}, None, None))  # type: ignore[arg-type]
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(scenario)


def test_a_cancellation_that_meets_the_timeout_is_not_lost() -> None:
    async def scenario() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                await asyncio.sleep(99.0)
            except asyncio.CancelledError:
                task.cancel()
                raise

        layer = Timeouts(app, total_s=1.0, start_s=None, idle_s=None)
        task = asyncio.ensure_future(layer({}, None, None))  # type: ignore[arg-type]
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(scenario)


@on_loop
async def test_time_up_cuts_off_a_client_that_does_not_read() -> None:
    lost = asyncio.Event()

    class Watched(HttpProtocol):
        def connection_lost(self, _exc: Exception | None) -> None:
            super().connection_lost(_exc)
            lost.set()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

    app = Timeouts(endless, total_s=0.1, start_s=None, idle_s=None)
    async with serving(app, Watched) as port, client(port) as one:
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await lost.wait()


@on_loop
async def test_time_up_before_the_answer_is_a_504_and_ends_the_request_upstream() -> None:
    ended: list[bool] = []

    async def silent(wire: Wire) -> None:
        await wire.head()
        await wire.gone()
        ended.append(True)

    async with model_server(silent) as fake, proxy(fake, timeout_s=0.05) as port, client(port) as one:
        for _ in range(2):
            reply = await one.get()
            assert (reply.status, reply.body) == (504, b"request timeout")
            assert reply.field(b"sponge-reason") == b"timeout"
            assert reply.field(b"x-content-type-options") is None
        await until(lambda: len(ended) == 2)


@on_loop
async def test_time_up_in_mid_answer_cuts_the_connection() -> None:
    async def stalls(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await wire.gone()

    async with model_server(stalls) as fake, proxy(fake, timeout_s=0.1) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await one.rest()).endswith(b"5\r\nhello\r\n")


@on_loop
async def test_an_unfinished_upload_does_not_keep_the_504_from_its_client() -> None:
    async def reads(wire: Wire) -> None:
        await wire.head()
        await wire.gone()

    async with model_server(reads) as fake, proxy(fake, timeout_s=0.05) as port, client(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nstalled")
        assert (await one.reply("POST")).status == 504
