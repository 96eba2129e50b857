"""Clients that claim less time than they have: they buy no cores with it, and turn nobody out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.claims import Load, run
from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.deadline import ClientBudget, deadline_of
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import Arrived, Refuse
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.errors import Reason
from knative_sponge.proxy.queue.endpoint import RequestRules
from tests.proxy.harness import on_loop
from tests.proxy.queue.inference_kit import PREDICT, Kit, behind_a_batch

RESNET = LatencyParams(0.0238, 0.0037, 0.0139, 0.0057)
SLO_S = 0.5
CLAIMS = st.sampled_from([{}, {b"x-sponge-slo-ms": b"40"}, {b"grpc-timeout": b"90m"}, {b"x-sponge-deadline": b"120"}])


def work_of(
    key: int, at_s: float, claims: dict[bytes, bytes], client_budget: ClientBudget = ClientBudget.SHORTER, **more: int
) -> Work:
    """A request on a clock that began with unix time."""
    deadline = deadline_of(
        claims,
        now=at_s,
        wall_now_s=at_s,
        slo_s=SLO_S,
        timeout_s=10.0,
        max_network_share=0.9,
        client_budget=client_budget,
    )
    give_up_s = max(deadline.at_s, at_s) + 0.5
    return Work(key, deadline.at_s, arrived_s=at_s, give_up_s=give_up_s, sizing_deadline_s=deadline.sizing_at_s, **more)


@pytest.mark.parametrize(("load", "most"), [(Load(8, 2, 40), 0.6), (Load(20, 20, 200), 2.0)], ids=str)
def test_what_clients_claim_buys_no_cores_and_costs_others_no_answer(load: Load, most: float) -> None:
    cores, _, missed, _ = run(load, ClientBudget.SHORTER, seed=1)
    unclaimed, *_ = run(load, ClientBudget.IGNORE, seed=1)
    assert cores < min(most, 1.1 * unclaimed)
    assert missed < 0.5
    believed, *_ = run(load, ClientBudget.ANY, seed=1)
    assert believed > 1.2 * cores, "where clients are believed it does, as it did for all"


def test_in_overload_who_claims_less_time_does_not_go_before_all_others() -> None:
    load = Load(30, 60, 100, max_cores=2.0)
    *_, missed, _ = run(load, ClientBudget.SHORTER, seed=1)
    *_, unclaimed, _ = run(load, ClientBudget.IGNORE, seed=1)
    *_, believed, _ = run(load, ClientBudget.ANY, seed=1)
    assert missed <= unclaimed < believed


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), CLAIMS, st.integers(1, 3)), min_size=1, max_size=60))
def test_of_equal_arrivals_the_same_cores_are_wanted_whatever_is_claimed(
    arrivals: list[tuple[int, dict[bytes, bytes], int]],
) -> None:
    demands = []
    for believed in (True, False):
        batcher = Batcher(BatchRules(max_rows=4, defer=DeferRules(mode="never")), LatencyModel(RESNET), 1.0, 16.0)
        batcher.handle(Arrived(Work(0, 1e6)), 0.0)  # the slot is taken: nothing leaves the queue
        estimator = DemandEstimator(CoresRules(0.1, 16.0), batcher)
        for key, (milliseconds, claims, rows) in enumerate(sorted(arrivals, key=lambda one: one[0]), start=1):
            at_s = milliseconds / 10_000
            work = work_of(key, at_s, claims if believed else {}, rows=rows)
            if work.deadline_s - batcher.model.predict_s(rows, 16.0) < 0.05:
                work = replace(work, deadline_s=work.sizing_deadline_s, give_up_s=10.0)  # hopeless: it would be dropped
            batcher.handle(Arrived(work), at_s)
        demands.append(estimator.demand(0.05))
    assert demands[0] == demands[1]


@on_loop
@pytest.mark.parametrize("claim", [{"x_sponge_slo_ms": "29900"}, {"grpc_timeout": "20S"}, {"x_sponge_sent": "1000"}])
async def test_a_thousand_requests_that_claim_less_time_turn_nobody_out_of_a_full_queue(claim: dict[str, str]) -> None:
    kit = Kit(rules=BatchRules(max_queue=1000, defer=DeferRules(mode="never")))
    await behind_a_batch(kit)
    honest = [kit.send(number) for number in range(1000)]
    urgent = [kit.post(b'{"instances": [1]}', PREDICT, **claim) for _ in range(1000)]
    for client in urgent:
        assert (await client).reason == b"queue-full"
    assert kit.counted("evicted") == 0
    for client in honest:
        assert not client.done()
        client.cancel()


@on_loop
async def test_rows_are_no_claim_to_a_place_either() -> None:
    kit = Kit(rules=BatchRules(max_queue=10, defer=DeferRules(mode="never")), requests=RequestRules(30.0, 60.0))
    await behind_a_batch(kit)
    heavy = [kit.send(*([0] * 1000)) for _ in range(10)]
    light = kit.send(1)
    assert (await light).reason == b"queue-full"
    for client in heavy:
        assert not client.done()
        client.cancel()


def test_late_requests_are_the_only_ones_that_make_room() -> None:
    batcher = Batcher(
        BatchRules(max_queue=3, serve_late=True, defer=DeferRules(mode="never")), LatencyModel(RESNET), 1.0, 16.0
    )
    batcher.handle(Arrived(Work(0, 1e6)), 0.0)
    for key in (1, 2):
        batcher.handle(Arrived(Work(key, 0.001, give_up_s=60.0)), 0.0)
    batcher.handle(Arrived(Work(3, 9.0)), 0.0)
    assert (len(batcher.late), len(batcher.queue)) == (2, 1)
    refused = []
    for key in (4, 5, 6):
        commands = batcher.handle(Arrived(Work(key, 5.0)), 0.0)
        refused += [(one.work.key, one.reason) for one in commands if isinstance(one, Refuse)]
    assert refused == [(2, Reason.EVICTED), (1, Reason.EVICTED), (6, Reason.QUEUE_FULL)]
