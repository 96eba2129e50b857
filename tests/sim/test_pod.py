"""What the rules are worth, in virtual time with the papers' models: the claims of docs/design.md §4 that can be checked."""

from __future__ import annotations

import random
import statistics

import pytest

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.fifo_batcher import FifoBatcher, FifoRules
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.profile.arrivals import ArrivalKind, arrivals
from knative_sponge.profile.trace import synthetic_trace
from knative_sponge.sim.pod import Outcome, Pod, Server

# Fitted by relative error to the tables of Sponge's authors (YOLOv5s on 1–16 cores, ResNet18 on 1–32).
YOLO = LatencyParams(0.1277, 0.0246, 0.0, 0.0184)
RESNET = LatencyParams(0.0238, 0.0037, 0.0139, 0.0057)
SECONDS = 120


def network_works(seed: int, rates: list[float], slo_s: float = 1.0, payload: int = 284 * 1024) -> list[Work]:
    """Requests whose network time eats a part of their SLO that changes every second."""
    rng = random.Random(seed)
    trace = synthetic_trace(len(rates) + 2, rng)
    sent = arrivals(ArrivalKind.BURST, rates, rng)
    came = sorted((at + trace.network_s(payload, at), at + slo_s) for at in sent)
    return [
        Work(key, deadline_s, arrived_s=at_s, give_up_s=max(deadline_s, at_s) + 1.0)
        for key, (at_s, deadline_s) in enumerate(came)
    ]


def ours(
    works: list[Work],
    truth: LatencyParams,
    *,
    prior: LatencyParams | None = None,
    cores: float | None = None,
    max_cores: float = 16.0,
    max_rows: int = 8,
    seed: int = 0,
) -> Outcome:
    """Our batcher: resized in place, or at fixed `cores`."""
    start = 1.0 if cores is None else cores
    model = LatencyModel(prior or truth, period_s=0.0)
    batcher = Batcher(BatchRules(max_rows=max_rows), model, start, cores or max_cores)
    estimator = DemandEstimator(CoresRules(1.0, max_cores), batcher) if cores is None else None
    return Pod(batcher, Server(truth), start, random.Random(seed), estimator=estimator).run(works)


def fifo(works: list[Work], truth: LatencyParams, cores: float, max_rows: int = 8) -> Outcome:
    """First come, first served with fixed batches."""
    machine = FifoBatcher(FifoRules(max_rows, 0.05), LatencyModel(truth, period_s=0.0), cores)
    return Pod(machine, Server(truth), cores, random.Random(0)).run(works)


def pooled(outcomes: list[Outcome]) -> float:
    return sum(o.missed for o in outcomes) / sum(o.requests for o in outcomes)


def test_resizing_in_place_needs_half_the_cores_for_almost_the_same_misses() -> None:
    histories = [network_works(seed, [20.0] * SECONDS) for seed in range(3)]
    moving = [ours(works, YOLO) for works in histories]
    largest = [ours(works, YOLO, cores=16.0) for works in histories]
    assert statistics.mean(o.mean_cores for o in moving) < 10.0
    assert pooled(moving) <= pooled(largest) + 0.003


def test_at_the_same_mean_cores_it_misses_less_than_fifo_and_than_standing_still() -> None:
    rates = [30.0 if second % 20 >= 15 else 10.0 for second in range(SECONDS)]
    works = network_works(5, rates)
    moving = ours(works, RESNET, max_cores=8.0, max_rows=16)
    still = ours(works, RESNET, cores=moving.mean_cores, max_rows=16)
    first_come = fifo(works, RESNET, moving.mean_cores, 16)
    assert moving.missed < still.missed
    assert moving.missed < first_come.missed


@pytest.mark.parametrize("load", [2.0, 3.0])
def test_in_overload_nearly_all_capacity_still_serves_somebody_in_time(load: float) -> None:
    cores, rows = 4.0, 16
    capacity = rows / RESNET.latency_s(rows, cores)
    rng = random.Random(1)
    came = sorted(rng.uniform(0, 60) for _ in range(int(60 * load * capacity)))
    works = [Work(key, at + rng.uniform(0.3, 1.0), arrived_s=at, give_up_s=at + 2.0) for key, at in enumerate(came)]
    outcome = ours(works, RESNET, cores=cores, max_rows=rows)
    served_in_time = outcome.requests - outcome.missed
    assert served_in_time > 0.9 * 60 * capacity


@pytest.mark.parametrize(("wrong", "allowed"), [(0.5, 10), (2.0, 10), (20.0, 60), (0.05, 40)])
def test_a_wrong_prior_costs_a_few_requests_and_no_more(wrong: float, allowed: int) -> None:
    # The first batch of a fresh server is no sample, so the first burst of 20 is served blindly.
    works = network_works(9, [20.0] * 60)
    prior = LatencyParams(*(wrong * value for value in (YOLO.gamma, YOLO.delta, YOLO.epsilon, YOLO.eta)))
    right = ours(works, YOLO)
    assert ours(works, YOLO, prior=prior).missed <= right.missed + allowed


def test_every_request_of_a_run_is_accounted_for() -> None:
    works = network_works(3, [40.0] * 30)
    outcome = ours(works, YOLO)
    assert outcome.requests == len(works) == len(outcome.waits_s) + sum(outcome.refused.values())
    assert outcome.rows == len(outcome.waits_s)


def test_the_same_seed_gives_the_same_run() -> None:
    works = network_works(4, [20.0] * 30)
    first, second = ours(works, YOLO), ours(works, YOLO)
    assert (first.missed, first.core_seconds, first.waits_s) == (second.missed, second.core_seconds, second.waits_s)
