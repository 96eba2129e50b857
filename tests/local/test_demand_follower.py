"""Following demand: the order of quota and words, bounds, and what happens when the proxy does not answer."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.backoff import Backoff
from knative_sponge.local import demand_follower
from knative_sponge.local.demand_follower import CoresRange, Follower, Resized
from knative_sponge.local.history import CoresHistory
from knative_sponge.wire.client import AdminClient
from tests.local.fake_cpu import FakeCpu
from tests.local.fake_proxy import Event, FakeProxy
from tests.local.waiting import until


class LoggedCpu(FakeCpu):
    """Adds each applied size to the same log as the proxy's events."""

    def __init__(self, log: list[Event], granularity_cores: float) -> None:
        super().__init__(granularity_cores)
        self.log = log
        self.broken = False

    def apply(self, cores: float) -> float:
        if self.broken:
            raise OSError(errno.ENODEV, "the group is gone")
        self.log.append(("apply", cores))
        return super().apply(cores)


@dataclass
class Stage:
    """A follower at 2 cores, bounds 0.1 to 4, before a fake proxy."""

    log: list[Event]
    proxy: FakeProxy
    cpu: LoggedCpu
    history: CoresHistory
    now: float = 0.0
    resized: list[Resized] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    async def sees(self, *events: Event) -> None:
        """Wait until the log's newest events are these, then forget them."""
        await until(lambda: self.log[-len(events) :] == list(events), f"{events} in {self.log}")
        self.log.clear()


@asynccontextmanager
async def stage(granularity: float = 0.001, silence_s: float = 5.0) -> AsyncIterator[Stage]:
    log: list[Event] = []
    proxy = FakeProxy("t", log.append, cores=2.0)
    await proxy.start()
    it = Stage(log, proxy, LoggedCpu(log, granularity), CoresHistory())
    it.history.record(0.0, 2.0)
    follower = Follower(
        it.cpu,
        AdminClient("127.0.0.1", proxy.port, "t", silence_s=silence_s),
        CoresRange(0.1, 4.0),
        it.history,
        cores=2.0,
        clock=lambda: it.now,
        resized=it.resized.append,
        trouble=it.trouble.append,
    )
    task = asyncio.create_task(follower.run())
    try:
        await it.sees(("demand", 1))
        yield it
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await proxy.close()


def play(scene: Callable[[Stage], Awaitable[None]], granularity: float = 0.001, silence_s: float = 5.0) -> None:
    async def main() -> None:
        async with stage(granularity, silence_s) as it:
            await scene(it)

    asyncio.run(main())


def test_growth_is_in_force_before_anyone_is_told() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.want(3.0)
        await it.sees(("apply", 3.0), ("actuated", 3.0))

    play(scene)


def test_a_shrink_is_told_before_it_is_in_force() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.want(0.5)
        await it.sees(("patched", 0.5), ("apply", 0.5), ("actuated", 0.5))

    play(scene)


def test_demand_beyond_the_bounds_is_clamped() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.want(99.0)
        await it.sees(("apply", 4.0), ("actuated", 4.0))
        it.proxy.want(0.01)
        await it.sees(("patched", 0.1), ("apply", 0.1), ("actuated", 0.1))

    play(scene)


def test_the_proxy_hears_the_size_that_can_be_set_not_the_one_it_wanted() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.want(2.3)
        await it.sees(("apply", 3.0), ("actuated", 3.0))
        it.proxy.want(2.9)  # still three whole cores
        it.proxy.want(0.3)
        await it.sees(("patched", 1.0), ("apply", 1.0), ("actuated", 1.0))

    play(scene, granularity=1.0)


def test_without_the_proxys_answer_nothing_shrinks() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.refuse_puts = True
        it.proxy.want(0.5)
        await until(lambda: len(it.trouble) == 1, "the refusal is reported")
        it.proxy.want(0.5)
        assert it.cpu.history == []
        it.proxy.refuse_puts = False
        it.proxy.want(0.5)
        await it.sees(("patched", 0.5), ("apply", 0.5), ("actuated", 0.5))

    play(scene)


def test_growth_does_not_wait_for_an_answer_and_is_told_again_later() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.refuse_puts = True
        it.proxy.want(3.0)
        await until(lambda: it.cpu.history == [3.0] and len(it.trouble) == 1, "grown, refusal reported")
        it.proxy.refuse_puts = False
        it.proxy.want(3.0)
        await it.sees(("apply", 3.0), ("actuated", 3.0))
        assert it.cpu.history == [3.0]

    play(scene)


def test_when_the_stream_breaks_the_size_stays_and_the_stream_is_opened_again() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.want(3.0)
        await it.sees(("apply", 3.0), ("actuated", 3.0))
        it.proxy.break_streams()
        await it.sees(("demand", 1))
        assert it.cpu.history == [3.0]
        assert len(it.trouble) == 1
        it.proxy.want(1.0)
        await it.sees(("patched", 1.0), ("apply", 1.0), ("actuated", 1.0))

    play(scene)


def test_a_stream_that_spoke_is_opened_again_after_the_first_wait_however_often_it_broke(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    class RecordedBackoff(Backoff):
        def wait_s(self) -> float:
            waits.append(super().wait_s())
            return waits[-1]

    monkeypatch.setattr(demand_follower, "Backoff", RecordedBackoff)

    async def scene(it: Stage) -> None:
        for want in (3.0, 2.5, 3.5):
            it.proxy.want(want)
            await it.sees(("actuated", want))
            it.proxy.break_streams()
            await it.sees(("demand", 1))
        assert len(set(waits)) == 1

    play(scene)


def test_a_stream_gone_silent_is_opened_again() -> None:
    async def scene(it: Stage) -> None:
        await it.sees(("demand", 1))

    play(scene, silence_s=0.2)


def test_a_line_that_makes_no_sense_changes_nothing() -> None:
    async def scene(it: Stage) -> None:
        it.proxy.say(b'{"v":1,"want":-1}\n')
        await it.sees(("demand", 1))
        assert it.cpu.history == []
        assert "not a demand" in it.trouble[0]

    play(scene)


def test_of_lines_that_waited_only_the_newest_counts() -> None:
    async def scene(it: Stage) -> None:
        for want in (1.0, 3.5, 0.3, 2.5):  # in one go: the follower sees them together
            it.proxy.want(want)
        await it.sees(("actuated", 2.5))
        assert it.cpu.history[-1] == 2.5
        assert len(it.cpu.history) <= 2

    play(scene)


def test_a_control_that_fails_is_reported_and_tried_again() -> None:
    async def scene(it: Stage) -> None:
        it.cpu.broken = True
        it.proxy.want(3.0)
        await until(lambda: len(it.trouble) == 1, "reported")
        assert "the group is gone" in it.trouble[0]
        it.cpu.broken = False
        it.proxy.want(3.0)
        await it.sees(("apply", 3.0), ("actuated", 3.0))

    play(scene)


def test_sizes_are_recorded_with_the_time_they_came_into_force() -> None:
    async def scene(it: Stage) -> None:
        it.now = 5.0
        it.proxy.want(3.0, queued=12, rate=14.2)
        await it.sees(("apply", 3.0), ("actuated", 3.0))
        assert it.history.steps == [(0.0, 2.0), (5.0, 3.0)]
        assert [(change.before, change.after, change.demand.queued) for change in it.resized] == [(2.0, 3.0, 12)]

    play(scene)


@given(st.floats(0.001, 100.0), st.sampled_from([0.00005, 0.001, 0.5, 1.0]))
def test_a_size_satisfies_the_want_and_the_bounds_on_the_grid(want: float, granularity: float) -> None:
    size = CoresRange(1.0, 8.0).size(want, granularity)
    assert 1.0 <= size <= 8.0
    assert size >= min(want, 8.0) - 1e-6
    assert size - granularity < max(want, 1.0)
    assert abs(size / granularity - round(size / granularity)) < 1e-6


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_impossible_bounds_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="bounds"):
        CoresRange(low, high)
