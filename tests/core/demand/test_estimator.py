"""Cores for one pod against a brute-force search, and the rules of growing and shrinking."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.core.batching.arrivals import Arrivals
from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import Arrived, BatchDone, CoresChanged
from knative_sponge.core.batching.plan import best_target, lanes_of
from knative_sponge.core.batching.running import Due
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.demand.outlook import Outlook
from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel

PARAMS = LatencyParams(0.05, 0.002, 0.01, 0.005)
WORKS = st.lists(
    st.tuples(st.integers(1, 120).map(lambda n: n / 50), st.sampled_from([1, 1, 1, 2, 5]), st.sampled_from("aab")),
    min_size=1,
    max_size=30,
).map(
    lambda drawn: sorted((Work(k, d, rows=r, group=g) for k, (d, r, g) in enumerate(drawn)), key=lambda w: w.deadline_s)
)


def batcher(cores: float = 1.0, reach: float = 4.0) -> Batcher:
    return Batcher(BatchRules(max_rows=8, defer=DeferRules(mode="never")), LatencyModel(PARAMS), cores, reach)


def rules(**changed: float | None) -> CoresRules:
    return CoresRules(**{"min_cores": 0.1, "max_cores": 4.0, **changed})  # type: ignore[arg-type]


def lost_by_hand(works: list[Work], share: float, rows: int, cores: float, model: LatencyModel) -> int:
    """Rows lost when one batch still has `share` to do, straight from its definition."""
    median, cautious = model.tables(cores, 8)
    start_s = share * model.predict_s(rows, cores) if rows else 0.0
    return sum(work.rows for work in works) - best_target(lanes_of(works), [start_s], 8, median, cautious)[1]


@settings(max_examples=600)
@given(WORKS, st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 8))
def test_need_is_the_least_size_that_loses_no_more_than_the_largest(works: list[Work], share: float, rows: int) -> None:
    model = LatencyModel(PARAMS)
    running = [(rows, share, Due.of(()))] if share else []
    outlook = Outlook(model, works, running, 0.0, 8, 1)
    need = outlook.least_cores(0.1, 4.0)
    at_most = lost_by_hand(works, share, rows if share else 0, 4.0, model)
    if at_most == sum(work.rows for work in works):
        assert need == 4.0, "nothing can be saved: saturate, never freeze"
        return
    assert lost_by_hand(works, share, rows if share else 0, need, model) <= at_most
    assert round(need * 1000) == pytest.approx(need * 1000, abs=1e-6), "on the grid of millicores"
    if need > 0.1:
        assert lost_by_hand(works, share, rows if share else 0, need - 0.001, model) > at_most, "one millicore too many"


@settings(max_examples=200)
@given(WORKS)
def test_the_curve_of_expected_misses_falls_with_cores(works: list[Work]) -> None:
    machine = batcher()
    for work in works:
        machine.handle(Arrived(work), 0.0)
    curve = DemandEstimator(rules(), machine).curve(0.0)
    assert [cores for cores, _ in curve] == sorted(cores for cores, _ in curve)
    assert (curve[0][0], curve[-1][0]) == (0.1, 4.0)
    misses = [missed for _, missed in curve]
    assert misses == sorted(misses, reverse=True)


def test_an_idle_pod_asks_for_the_least() -> None:
    assert DemandEstimator(rules(), batcher()).want(0.0) == 0.1


def test_a_surge_is_asked_for_at_once() -> None:
    machine = batcher()
    estimator = DemandEstimator(rules(), machine)
    assert estimator.want(0.0) == 0.1
    for key in range(20):
        machine.handle(Arrived(Work(key, 0.6)), 0.0)
    assert estimator.want(0.0) > 1.5


def test_shrinking_waits_for_the_hold_and_then_happens() -> None:
    machine = batcher()
    estimator = DemandEstimator(rules(headroom=None, newcomer=False, hold_s=1.0), machine)
    machine.handle(Arrived(Work(1, 0.2)), 0.0)
    grown = estimator.want(0.0)
    assert grown > 0.1
    machine.running.clear()
    assert estimator.want(0.9) == grown
    assert estimator.want(1.1) == 0.1


def test_a_shrink_too_small_to_matter_is_not_asked_for() -> None:
    machine = batcher()
    estimator = DemandEstimator(rules(hold_s=0.0, deadband=0.1, use_queue=False), machine)
    asked = []
    for second, rate in enumerate((40, 39, 38, 30, 31)):
        machine.arrivals = Arrivals(rate_window_s=1.0)
        for step in range(rate):
            machine.arrivals.add(second + step / rate, 1, 2.0)
        asked.append(estimator.want(second + 0.999))
    assert asked[0] == asked[1] == asked[2]
    assert asked[3] < 0.9 * asked[2]
    assert asked[4] > asked[3], "growth is never held back"


def test_a_running_batch_that_would_be_late_asks_for_cores() -> None:
    machine = batcher(cores=0.1)
    machine.handle(Arrived(Work(1, 0.3)), 0.0)  # 0.6 s at 0.1 cores
    assert not len(machine.queue)
    estimator = DemandEstimator(rules(headroom=None, newcomer=False), machine)
    want = estimator.want(0.0)
    assert machine.model.cautious_s(1, want) <= 0.3 + 1e-9
    assert machine.model.cautious_s(1, want - 0.001) > 0.3


def test_progress_of_the_running_batch_counts_through_a_resize() -> None:
    machine = batcher(cores=0.5)
    machine.handle(Arrived(Work(1, 10.0)), 0.0)
    whole = machine.model.predict_s(1, 0.5)
    machine.handle(CoresChanged(4.0), whole / 2)
    left = machine.running[1].left_share(whole / 2, machine.model)
    assert left == pytest.approx(0.5)


def test_the_floor_serves_what_arrives_whatever_the_queue_says() -> None:
    machine = batcher(cores=4.0)
    for step in range(400):
        machine.arrivals.add(step * 0.025, 1, 2.0)  # 40 rows/s
    want = DemandEstimator(rules(), machine).want(10.0)
    median, _ = machine.model.tables(want, 8)
    assert max(rows / median[rows] for rows in range(1, 9)) >= machine.arrivals.rate(10.0) * 1.1 - 1e-6


def test_what_cannot_be_served_at_all_saturates_instead_of_freezing() -> None:
    machine = batcher()
    for step in range(4000):
        machine.arrivals.add(step * 0.0025, 1, 1.0)  # 400 rows/s; 4 cores serve 100
    assert DemandEstimator(rules(), machine).want(10.0) == 4.0


def test_each_lever_can_be_switched_off() -> None:
    machine = batcher()
    for key in range(20):
        machine.handle(Arrived(Work(key, 0.6)), 0.0)
    assert DemandEstimator(rules(use_queue=False, headroom=None), machine).need(0.0) == 0.1
    assert DemandEstimator(rules(headroom=None), machine).need(0.0) > 1.5


def test_room_is_left_for_one_urgent_newcomer() -> None:
    machine = batcher()
    for step in range(50):
        machine.arrivals.add(step * 0.1, 1, 0.1)  # 10 rows/s, 100 ms each
    machine.handle(Arrived(Work(1, 20.0)), 5.0)
    machine.running.clear()
    with_room = DemandEstimator(rules(headroom=None), machine).need(5.0)
    without = DemandEstimator(rules(headroom=None, newcomer=False), machine).need(5.0)
    assert without == 0.1
    assert machine.model.cautious_s(1, with_room) <= 0.1 + 1e-9


def test_a_request_that_nothing_can_save_does_not_change_the_size() -> None:
    machine = batcher()
    estimator = DemandEstimator(rules(), machine)
    wants = []
    for step in range(100):
        now = step * 0.1
        slack_s = -0.1 if step == 50 else 0.001 if step % 7 == 3 else 2.0
        machine.handle(Arrived(Work(step, now + slack_s, give_up_s=now + 10.0)), now)
        machine.handle(BatchDone(max(machine.running, default=0), sample=False), now)
        wants.append(estimator.want(now))
    assert max(wants[30:]) == max(wants[30:50]) < 2.0


def test_several_calls_at_once_share_the_cores_but_not_the_serial_part() -> None:
    serial = LatencyParams(0.001, 0.0, 0.0, 0.1)  # 10 calls a second each, on hardly any core
    machine = Batcher(BatchRules(max_rows=1, max_inflight=8), LatencyModel(serial, period_s=0.0), 1.0, 4.0)
    for step in range(500):
        machine.arrivals.add(step * 0.02, 1, 5.0)  # 50 rows/s
    estimator = DemandEstimator(rules(), machine)
    assert estimator.need(10.0) < 0.5
    assert estimator.curve(10.0)[-1][1] == 0.0


def test_the_floor_of_several_calls_at_once_is_what_each_needs_for_its_share() -> None:
    machine = Batcher(BatchRules(max_rows=8, max_inflight=2), LatencyModel(PARAMS, period_s=0.0), 4.0, 8.0)
    for step in range(400):
        machine.arrivals.add(step * 0.025, 1, 2.0)  # 40 rows/s
    need = DemandEstimator(rules(max_cores=8.0), machine).need(10.0)
    costs = machine.model.cost_table(need / 2, 8)
    assert 2 * max(rows / costs[rows] for rows in range(1, 9)) >= machine.arrivals.rate(10.0) * 1.1 - 1e-6


def test_when_resizes_are_slow_the_densest_burst_seen_is_planned_for() -> None:
    quick, slow = (DemandEstimator(rules(headroom=None, resize_s=s), batcher()) for s in (0.1, 0.8))
    for estimator in (quick, slow):
        machine = estimator._batcher
        for step in range(8):
            machine.arrivals.add(step * 0.01, 1, 0.4)
    assert slow.need(0.2) > quick.need(0.2)


@settings(max_examples=200)
@given(WORKS, st.lists(st.floats(0.01, 6.0), min_size=1, max_size=5))
def test_no_more_is_asked_for_than_is_within_reach(works: list[Work], reaches: list[float]) -> None:
    machine = batcher()
    estimator = DemandEstimator(rules(), machine)
    for work in works:
        machine.handle(Arrived(work), 0.0)
    assert estimator.want(0.0) <= 4.0
    for step, reach in enumerate(reaches):
        estimator.within(reach)
        now = 0.05 * step  # the largest need of the last second was another
        assert estimator.want(now) <= reach
        curve = estimator.curve(now)
        sizes = [cores for cores, _ in curve]
        assert sizes == sorted(set(sizes)), "each once, ascending"
        assert (sizes[0], sizes[-1]) == (round(min(0.1, reach), 3), round(reach, 3))


def test_wider_reach_is_used_at_once() -> None:
    machine = batcher()
    estimator = DemandEstimator(rules(), machine)
    for key in range(20):
        machine.handle(Arrived(Work(key, 0.6)), 0.0)
    free = estimator.want(0.0)
    estimator.within(1.0)
    assert estimator.want(0.0) == 1.0
    estimator.within(4.0)
    assert estimator.want(0.0) == free > 1.0


def test_the_demand_carries_what_slower_decisions_need() -> None:
    machine = batcher()
    estimator = DemandEstimator(rules(), machine)
    before = estimator.demand(0.0)
    assert (before.slack_s, before.rows, before.max_batch, before.samples) == (None, 1.0, 8, 0)
    assert before.params == machine.model.params
    for key in range(40):
        machine.arrivals.add(0.0, 3 if key % 2 else 1, 0.1 * (key + 1))
    machine.model.observe(Sample(2, 1.0, 0.3), 0.0)
    after = estimator.demand(0.0)
    assert after.slack_s == pytest.approx(0.3), "two of forty, 5 %, had less"
    assert (after.rows, after.samples) == (2.0, 1)
    assert after.params == machine.model.params != before.params


def test_the_demand_names_size_need_rate_and_queue() -> None:
    machine = batcher()
    for key in range(3):
        machine.handle(Arrived(Work(key, 5.0, rows=2)), 0.0)
    demand = DemandEstimator(rules(), machine).demand(0.0)
    assert (demand.cores, demand.queued, demand.running) == (1.0, 4, 1)
    assert demand.rate == pytest.approx(6.0)
    assert len(demand.curve) == 8


@pytest.mark.parametrize(
    "bad",
    [
        {"min_cores": 0.0},
        {"max_cores": 0.05},
        {"headroom": -0.1},
        {"hold_s": -1.0},
        {"curve_points": 1},
        {"deadband": 1.0},
    ],
)
def test_impossible_rules_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|impossible"):
        rules(**bad)
