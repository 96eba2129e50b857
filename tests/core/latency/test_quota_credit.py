"""What a batch costs under a CPU quota: bounds that hold for any server, and the truth of one that computes."""

from __future__ import annotations

import random
from itertools import count
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.events import Arrived, BatchDone, BatcherCommand, Dispatch
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.curve import Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.quota_credit import Credit, longest_wait_s

PERIOD_S = 0.1
CALLS = st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 0.5)), min_size=1, max_size=30)


@given(CALLS, st.floats(0.01, 3.0), st.integers(1, 2))
def test_a_cost_is_no_less_than_the_latency_and_no_more_than_threads_could_run(
    calls: list[tuple[float, float]], cores: float, threads: int
) -> None:
    credit = Credit(threads, PERIOD_S)
    for seconds, rested_s in calls:
        cost_s = credit.cost_s(Sample(1, cores, seconds, rested_s=rested_s))
        assert seconds <= cost_s <= max(seconds, seconds * threads / cores) * (1 + 1e-9)
        assert cost_s - seconds <= longest_wait_s(cores, threads, PERIOD_S) + 1e-12
        if cores >= threads:
            assert cost_s == seconds


@given(CALLS, st.floats(0.01, 0.99))
def test_what_batches_draw_has_come_in_at_rest(calls: list[tuple[float, float]], cores: float) -> None:
    credit = Credit(1, PERIOD_S)
    drawn_s = sum(credit.cost_s(Sample(1, cores, seconds, rested_s=rested_s)) - seconds for seconds, rested_s in calls)
    assert drawn_s <= longest_wait_s(cores, 1, PERIOD_S) + sum(rested_s for _, rested_s in calls[1:]) + 1e-9


def test_batches_of_a_busy_run_are_counted_together() -> None:
    """Two at a time, and each second one waits for what the first used up: on the whole 40 ms per row on half a core."""
    credit = Credit(1, PERIOD_S)
    assert credit.mean_cost(Sample(1, 0.5, 0.02, rested_s=inf)) == Sample(1, 0.5, 0.04)
    means = [credit.mean_cost(Sample(1 + call % 2 * 2, 0.5, 0.02 if call % 2 else 0.14)) for call in range(40)]
    found = [mean for mean in means if mean is not None]
    assert len(found) >= 5
    for mean in found[1:]:
        assert mean.seconds / mean.rows == pytest.approx(0.04, rel=0.3)
    total_s, rows = sum(mean.seconds * 1.0 for mean in found[1:]), sum(mean.rows for mean in found[1:])
    assert total_s / rows == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize("cores", [0.2, 1.0])
def test_a_run_that_a_rest_or_another_size_ends_is_no_measurement(cores: float) -> None:
    credit = Credit(1, PERIOD_S)
    for call in range(3):
        credit.mean_cost(Sample(1, 0.5, 0.1, rested_s=inf if call == 0 else 0.0))
    other = Sample(2, cores, 0.1, rested_s=0.3)
    assert credit.mean_cost(other) == Sample(2, cores, 0.1 + longest_wait_s(cores, 1, PERIOD_S))


@pytest.mark.parametrize("period_s", [0.0, PERIOD_S])
def test_a_busy_run_costs_what_it_takes_whatever_the_server_does(period_s: float) -> None:
    credit = Credit(1, period_s)
    first, *others = [credit.cost_s(Sample(1, 0.5, 0.2, rested_s=inf if call == 0 else 0.0)) for call in range(5)]
    assert first == pytest.approx(0.2 + longest_wait_s(0.5, 1, period_s))
    assert others == [0.2] * 4


def test_the_bucket_fits_the_size_of_now() -> None:
    credit = Credit(1, PERIOD_S)
    assert credit.cost_s(Sample(1, 0.9, 1.0, rested_s=inf)) == pytest.approx(1.01)
    assert credit.cost_s(Sample(1, 0.1, 1.0, rested_s=0.03)) == pytest.approx(1.03)
    assert credit.cost_s(Sample(1, 0.1, 1.0, rested_s=5.0)) == pytest.approx(1.09)


def quota_latency_s(work_s: float, cores: float, at_s: float) -> float:
    """Of so many CPU-seconds on one thread that begin at `at_s` with the period's quota untouched: step by step."""
    period, used_s, now = int(at_s / PERIOD_S), 0.0, at_s
    while True:
        end_s = (period + 1) * PERIOD_S
        runs_s = min(work_s, cores * PERIOD_S - used_s, end_s - now)
        work_s -= runs_s
        if work_s <= 1e-12:
            return now + runs_s - at_s
        period, used_s, now = period + 1, 0.0, end_s


@pytest.mark.parametrize("cores", [0.1, 0.25, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("work_s", [0.005, 0.02, 0.04, 0.15])
def test_at_rest_the_cost_of_a_server_that_computes_is_its_work(work_s: float, cores: float) -> None:
    """Where a burst ends within a period nobody can see; on the whole that is under a quarter of the truth."""
    rng, credit = random.Random(7), Credit(1, PERIOD_S)
    costs = [
        credit.cost_s(Sample(1, cores, quota_latency_s(work_s, cores, 10 + rng.random()), rested_s=1.0))
        for _ in range(2000)
    ]
    assert sum(costs) / len(costs) == pytest.approx(work_s / cores, rel=0.25)


@pytest.mark.parametrize("cores", [0.5, 0.45, 0.437])
def test_a_busy_minute_shows_that_a_server_waits_and_does_not_compute(cores: float) -> None:
    """20 ms a batch, whatever its cores: at rest it may have computed on a full core, in a busy run it cannot have."""
    rng, model = random.Random(3), LatencyModel()
    batcher = Batcher(BatchRules(max_rows=1), model, cores, 4.0)
    keys = count()

    def arrive(now: float) -> list[BatcherCommand]:
        return batcher.handle(Arrived(Work(next(keys), now + 1.0, arrived_s=now, give_up_s=now + 9.0)), now)

    def batch_of(commands: list[BatcherCommand]) -> int:
        (found,) = (each.batch for each in commands if isinstance(each, Dispatch))
        return found

    now = 54321.123
    for _ in range(30):
        batch, seconds = batch_of(arrive(now)), 0.02 * rng.uniform(0.9, 1.1)
        now += seconds
        batcher.handle(BatchDone(batch, seconds), now)
        now += 1.0
    assert model.costs.params.latency_s(1, cores) > 0.035
    batch = batch_of(arrive(now))
    for _ in range(3000):
        arrive(now)  # waits when the batch before it ends
        seconds = 0.02 * rng.uniform(0.9, 1.1)
        now += seconds
        batch = batch_of(batcher.handle(BatchDone(batch, seconds), now))
    assert model.costs.params.latency_s(1, cores) == pytest.approx(0.02, rel=0.1)


def test_a_second_busy_run_is_measured_like_the_first() -> None:
    credit = Credit(1, PERIOD_S)
    credit.mean_cost(Sample(1, 0.5, PERIOD_S, rested_s=9.0))  # draws all there is
    for _ in range(2):
        found = [credit.mean_cost(Sample(rows, 0.5, PERIOD_S)) for rows in (1, 2, 3, 4, 5)]
        assert found[:4] == [None] * 4
        assert found[4] is not None
        assert (found[4].rows, found[4].seconds) == pytest.approx((3.0, PERIOD_S))
