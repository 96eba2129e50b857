"""A model server under the kernel's quota: the simulated one keeps to it; what is learned at rest holds under load."""

from __future__ import annotations

import random

import pytest

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.sim.pod import Outcome, Server
from knative_sponge.sim.quota import PERIOD_S, QuotaPod

ROW_S = 0.04
MODEL = LatencyParams(gamma=ROW_S, delta=0.0, epsilon=0.0, eta=0.0)


class Fixed(QuotaPod):
    """Keeps its size, and every want that it was told."""

    def __init__(self, cores: float, *, cap: int = 1, estimate: bool = False) -> None:
        batcher = Batcher(BatchRules(max_rows=cap), LatencyModel(MODEL, period_s=PERIOD_S), cores, 1.0)
        estimator = DemandEstimator(CoresRules(0.05, 1.0), batcher) if estimate else None
        super().__init__(batcher, Server(MODEL, spread=0.0), cores, random.Random(1), estimator=estimator)
        self.model = batcher.model
        self.wants: list[tuple[float, float]] = []

    def _resize(self, cores: float) -> None:
        self.wants.append((self._now, cores))


def works(times: list[float], slo_s: float = 5.0) -> list[Work]:
    return [Work(key, at_s + slo_s, arrived_s=at_s, give_up_s=at_s + slo_s + 1.0) for key, at_s in enumerate(times)]


@pytest.mark.parametrize(
    ("cores", "at_s", "takes_s"),
    [
        pytest.param(0.5, 0.0, 0.04, id="within one period's quota"),
        pytest.param(0.25, 0.0, 0.115, id="25 ms, and 15 ms in the next period"),
        pytest.param(0.25, 0.08, 0.04, id="20 ms of this period and 20 ms of the next"),
        pytest.param(0.1, 0.0, 0.31, id="10 ms in each of four"),
        pytest.param(1.0, 0.03, 0.04, id="no quota to speak of"),
    ],
)
def test_a_batch_runs_until_the_periods_quota_is_gone(cores: float, at_s: float, takes_s: float) -> None:
    outcome = Fixed(cores).run(works([at_s]))
    assert outcome.waits_s == [pytest.approx(takes_s)]


def test_a_queue_is_served_as_fast_as_the_quota_allows() -> None:
    outcome: Outcome = Fixed(0.25).run(works([0.0] * 20))
    assert max(outcome.waits_s) == pytest.approx(20 * ROW_S / 0.25, abs=PERIOD_S)


@pytest.mark.parametrize("cores", [0.3, 0.5, 0.8])
def test_what_is_learned_at_rest_is_the_work_and_not_the_burst(cores: float) -> None:
    rng, pod = random.Random(3), Fixed(cores)
    pod.run(works([0.7 * call + 0.1 * rng.random() for call in range(200)]))
    assert pod.model.cost_table(cores, 1)[1] == pytest.approx(ROW_S / cores, rel=0.25)
    if cores >= 0.5:
        assert pod.model.predict_s(1, cores) == pytest.approx(ROW_S, rel=0.05), "and deadlines are judged by the burst"


@pytest.mark.parametrize(("cores", "rate"), [(0.5, 16.0), (0.4, 12.0), (0.3, 8.0)])
def test_a_busy_pods_large_batches_do_not_look_cheap_because_others_did_the_waiting(cores: float, rate: float) -> None:
    truth = LatencyParams(gamma=0.02, delta=0.0, epsilon=0.01, eta=0.0)
    for seed in range(3):
        rng, times, at_s = random.Random(seed), [], 0.0
        while at_s < 60.0:
            at_s += rng.expovariate(rate)
            times.append(at_s)
        batcher = Batcher(BatchRules(max_rows=16), LatencyModel(period_s=PERIOD_S), cores, 1.0)
        outcome = QuotaPod(batcher, Server(truth, spread=0.1), cores, rng).run(works(times, slo_s=0.5))
        costs = batcher.model.cost_table(cores, 2)
        assert outcome.mean_batch > 1.05
        assert costs[1] == pytest.approx(truth.latency_s(1, cores), rel=0.08)
        assert costs[2] == pytest.approx(truth.latency_s(2, cores), rel=0.15)


@pytest.mark.parametrize("rate", [4.0, 8.0, 12.0])
def test_a_pod_at_rest_on_enough_cores_does_not_ask_for_too_few(rate: float) -> None:
    """Each request finds the server at rest, so that none takes longer than its work: the sizes that follow must not."""
    cores = min(1.0, 1.5 * rate * ROW_S)
    pod = Fixed(cores, estimate=True)
    pod.run(works([call / rate for call in range(int(60 * rate))], slo_s=1.0))
    late = [want for at_s, want in pod.wants if 20.0 < at_s < 59.0] or [pod.wants[-1][1]]
    assert min(late) >= rate * ROW_S
