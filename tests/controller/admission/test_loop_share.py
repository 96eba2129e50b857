"""Whoever sends the webhook more than its share waits; nobody else does."""

from __future__ import annotations

import asyncio

import pytest

from knative_sponge.controller.admission.loop_share import (
    BURST_OF_ALL_S,
    BURST_S,
    SHARE,
    SHARE_OF_ALL,
    WAITING_OF_ALL,
    BusyCaller,
    LoopShare,
)


class Clock:
    """Time goes on while somebody sleeps, and only then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.begun_s = self.now
        self._real = asyncio.sleep
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    def __call__(self) -> float:
        return self.now

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        await self._real(0)


def test_a_caller_waits_once_its_burst_is_spent_and_gets_its_share_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    share = LoopShare(clock)

    async def body() -> None:
        spent_s = 0.0
        for _ in range(400):
            await share.turn("10.0.0.1")
            share.spent("10.0.0.1", 0.01)
            spent_s += 0.01
        passed_s = clock.now - clock.begun_s
        assert spent_s == pytest.approx(BURST_S + SHARE * passed_s, rel=0.05)

    asyncio.run(body())


def test_nobody_waits_for_somebody_elses_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    share = LoopShare(clock)
    share.spent("10.0.0.1", 1.5 * BURST_S)
    asyncio.run(share.turn("10.0.0.2"))
    assert clock.now == clock.begun_s


def test_who_was_quiet_may_send_a_burst_again_and_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    share = LoopShare(clock)
    share.spent("10.0.0.1", 5 * BURST_S)
    clock.now += 1e6
    share.spent("10.0.0.1", 0.9 * BURST_S)
    begun_s = clock.now
    asyncio.run(share.turn("10.0.0.1"))
    assert clock.now == begun_s
    share.spent("10.0.0.1", 0.2 * BURST_S)
    asyncio.run(share.turn("10.0.0.1"))
    assert clock.now > begun_s


def test_of_one_callers_reviews_only_so_many_wait() -> None:
    async def body() -> None:
        share = LoopShare()
        share.spent("10.0.0.1", 1000.0)
        waiting = [asyncio.create_task(share.turn("10.0.0.1")) for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(BusyCaller):
            await share.turn("10.0.0.1")
        waiting.pop().cancel()
        await asyncio.sleep(0)
        another = asyncio.create_task(share.turn("10.0.0.1"))
        await asyncio.sleep(0)
        assert not another.done()
        for task in (*waiting, another):
            task.cancel()

    asyncio.run(body())


def test_callers_without_number_are_forgotten() -> None:
    share = LoopShare()
    for number in range(5000):
        share.spent(str(number), 0.1)
    assert len(share._callers) <= 1025


def test_many_callers_together_leave_half_of_the_loop_to_others_and_a_quiet_one_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    share = LoopShare(clock)
    spent_s, waited_s = 0.0, []

    async def flood(who: str) -> None:
        nonlocal spent_s
        for _ in range(50):
            await share.turn(who)
            share.spent(who, 0.01)
            clock.now += 0.01
            spent_s += 0.01

    async def body() -> None:
        floods = [asyncio.create_task(flood(f"10.0.1.{number % 40}")) for number in range(200)]
        for _ in range(100):
            await asyncio.sleep(0.05)
            begun_s = clock.now
            await share.turn("10.0.0.1")
            waited_s.append(clock.now - begun_s)
            share.spent("10.0.0.1", 0.0002)
        await asyncio.gather(*floods)

    asyncio.run(body())
    assert spent_s == pytest.approx(100.0)
    assert spent_s <= BURST_OF_ALL_S + SHARE_OF_ALL * (clock.now - clock.begun_s) + 0.1
    assert waited_s[0] < 1.0, "one review of each, while all are new"
    assert max(waited_s[1:]) < 0.1, "the time of a few reviews"


def test_when_too_many_reviews_wait_the_caller_that_has_taken_most_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    share = LoopShare(clock)

    async def body() -> None:
        for number in range(9):
            share.spent(f"10.0.1.{number}", 1000.0 - number)
        waiting = [asyncio.create_task(share.turn(f"10.0.1.{at % 8}")) for at in range(WAITING_OF_ALL)]
        await asyncio.sleep(0)
        late = asyncio.create_task(share.turn("10.0.1.8"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not late.done()
        (away,) = (task for task in waiting if task.done())
        assert isinstance(away.exception(), BusyCaller)
        assert waiting.index(away) % 8 == 0
        for task in (*waiting, late):
            task.cancel()
        await asyncio.gather(*waiting, late, return_exceptions=True)

    asyncio.run(body())
