"""Demand streams: what is heard of proxies over real sockets, however lines are cut, and what becomes of silent ones."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.proxies import demand_streams as streams
from knative_sponge.controller.proxies.demand_streams import Address, DemandStreams
from knative_sponge.core.backoff import Backoff
from knative_sponge.wire.demand import DemandLine
from tests.controller.admission.webhook_kit import LOOPS
from tests.controller.revision_kit import until
from tests.local.fake_proxy import FakeProxy

KEY = ("ns", "pod")


class Heard:
    """Streams to proxies on one port of this machine, and every line heard."""

    def __init__(self, port: int) -> None:
        self.lines: list[tuple[Key, DemandLine]] = []
        self.fails = False
        self.streams = DemandStreams(random.Random(1), self._hear, port=port)

    def _hear(self, key: Key, line: DemandLine) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.lines.append((key, line))

    @property
    def wants(self) -> list[float]:
        return [line.want for _, line in self.lines]

    @property
    def steps(self) -> list[tuple[Key, float]]:
        """Who spoke, and what it wanted."""
        return [(key, line.want) for key, line in self.lines]


def address(token: str = "secret", uid: str = "u1") -> Address:
    return Address("127.0.0.1", token, uid)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a test's coroutine on each kind of event loop."""

    def on_loop(body: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await body

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return on_loop


@pytest.fixture
def served(run: Callable[[Coroutine[Any, Any, None]], None]) -> Callable[[Any], None]:
    async def whole(body: Any) -> None:
        proxy = FakeProxy("secret", lambda _event: None)
        await proxy.start()
        heard = Heard(proxy.port)
        try:
            await body(proxy, heard)
        finally:
            heard.streams.close()
            await proxy.close()

    return lambda body: run(whole(body))


def test_each_line_is_heard(served: Any) -> None:
    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address()})
        await until(lambda: heard.wants == [1.0])
        proxy.want(2.5, rate=7.0, curve=((1.0, 3.0), (2.5, 0.0)), slack=0.4)
        await until(lambda: heard.steps == [(KEY, 1.0), (KEY, 2.5)])
        line = heard.lines[-1][1]
        assert (line.rate, line.curve, line.slack) == (7.0, ((1.0, 3.0), (2.5, 0.0)), 0.4)

    served(body)


def test_of_lines_that_come_together_the_last_counts(served: Any) -> None:
    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address()})
        await until(lambda: proxy.listeners == 1)
        proxy.say(b'{"cores":1,"want":2}\n{"cores":1,"want":3}\n{"cores":1,"wa')
        proxy.say(b'nt":4}\n')
        await until(lambda: heard.wants[-1] == 4.0)
        assert 2.0 not in heard.wants

    served(body)


@pytest.mark.parametrize(
    "said",
    [b"no json\n", b'{"cores":1}\n', b'{"cores":1,"want":0}\n', b'{"cores":1,"want":NaN}\n', b"x" * 70_000],
    ids=["no JSON", "nothing wanted", "no size", "no number", "no end"],
)
def test_what_is_no_line_ends_the_stream_and_a_new_one_is_opened(said: bytes, served: Any) -> None:
    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address()})
        await until(lambda: heard.wants == [1.0])
        proxy.want(2.0)
        proxy.say(said)
        await until(lambda: proxy.listeners == 1)

    served(body)


def test_a_lost_stream_is_remade(served: Any) -> None:
    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address()})
        await until(lambda: heard.wants == [1.0])
        proxy.break_streams()
        await until(lambda: heard.steps == [(KEY, 1.0), (KEY, 1.0)])

    served(body)


def test_a_stream_that_spoke_is_opened_again_soon_however_often_it_broke(
    monkeypatch: pytest.MonkeyPatch, served: Any
) -> None:
    waits: list[float] = []

    class RecordedBackoff(Backoff):
        def wait_s(self) -> float:
            waits.append(super().wait_s())
            return waits[-1]

    monkeypatch.setattr(streams, "Backoff", RecordedBackoff)

    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address()})
        for turn in range(1, 5):
            await until(lambda: len(heard.wants) == turn)  # noqa: B023
            proxy.break_streams()
        await until(lambda: len(waits) == 4)
        assert max(waits) <= 0.1

    served(body)


def test_a_line_that_cannot_be_used_is_told_once_and_tried_again_after_growing_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, served: Any
) -> None:
    waits: list[float] = []

    class RecordedBackoff(Backoff):
        def wait_s(self) -> float:
            waits.append(super().wait_s())
            return waits[-1] / 10

    monkeypatch.setattr(streams, "Backoff", RecordedBackoff)

    async def body(proxy: FakeProxy, heard: Heard) -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        heard.fails = True
        heard.streams.follow({KEY: address()})
        await until(lambda: len(waits) == 4)
        heard.fails = False
        await until(lambda: heard.wants)
        assert waits[3] > 2 * waits[0]
        assert not failures
        (told,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert told.startswith("demands: ns/pod cannot be handled: ZeroDivisionError")

    served(body)


def test_a_silent_stream_is_given_up(monkeypatch: pytest.MonkeyPatch, served: Any) -> None:
    monkeypatch.setattr(streams, "SILENCE_S", 0.05)

    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address()})
        await until(lambda: len(heard.wants) >= 3)  # each stream says one line, then nothing

    served(body)


def test_streams_are_not_given_up_for_what_held_up_the_listener(monkeypatch: pytest.MonkeyPatch, served: Any) -> None:
    monkeypatch.setattr(streams, "SILENCE_S", 0.3)

    async def body(proxy: FakeProxy, heard: Heard) -> None:
        async def beats() -> None:
            while True:
                proxy.repeat()
                await asyncio.sleep(0.02)

        heard.streams.follow({KEY: address()})
        await until(lambda: heard.wants)
        beating = asyncio.create_task(beats())
        for _ in range(3):
            time.sleep(0.5)  # noqa: ASYNC251 - nobody in this process runs meanwhile
            before = len(heard.wants)
            await until(lambda: len(heard.wants) >= before + 10)  # noqa: B023
        beating.cancel()
        assert proxy.asked == 1, "it is the first stream still"

    served(body)


def test_a_wrong_token_hears_nothing(served: Any) -> None:
    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address(token="guessed")})
        other = ("ns", "other")
        heard.streams.follow({KEY: address(token="guessed"), other: address()})
        await until(lambda: len(heard.wants) == 1)
        assert heard.steps == [(other, 1.0)]

    served(body)


def test_a_pod_that_was_replaced_is_asked_anew_and_one_that_left_is_forgotten(served: Any) -> None:
    async def body(proxy: FakeProxy, heard: Heard) -> None:
        heard.streams.follow({KEY: address(uid="u1")})
        await until(lambda: heard.wants == [1.0])
        heard.streams.follow({KEY: address(uid="u2")})
        await until(lambda: heard.steps == [(KEY, 1.0), (KEY, 1.0)])
        heard.streams.follow({})
        await until(lambda: proxy.listeners == 0)

    served(body)


def test_a_proxy_that_comes_late_is_heard(run: Any) -> None:
    async def body() -> None:
        first = FakeProxy("secret", lambda _event: None)
        await first.start()
        port = first.port
        await first.close()
        heard = Heard(port)
        heard.streams.follow({KEY: address()})
        await asyncio.sleep(0)
        proxy = FakeProxy("secret", lambda _event: None, cores=3.0)
        await proxy.start(port)
        await until(lambda: heard.wants == [3.0])
        heard.streams.close()
        await proxy.close()

    run(body())
