"""The batcher in named cases."""

from __future__ import annotations

from typing import Any

import pytest

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import Arrived, BatchDone, CoresChanged, Dispatch
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.errors import Reason
from tests.core.batching.virtual_shell import VirtualShell, batches, exact_model, new_batcher, works


def test_a_request_that_arrives_alone_is_sent_at_once() -> None:
    shell = VirtualShell(new_batcher().handle)
    shell.arrive(works(1.0)[0])
    assert batches(shell) == [[1]]


def test_what_waits_behind_a_batch_is_merged_in_deadline_order() -> None:
    shell = VirtualShell(new_batcher().handle)
    for work in works(2.0, 1.9, 1.5, 1.7):
        shell.arrive(work)
    shell.finish(1, "done")
    assert batches(shell) == [[1], [3, 4, 2]]


def test_an_expired_request_is_told_at_once() -> None:
    shell = VirtualShell(new_batcher().handle)
    shell.arrive(works(-0.1)[0])
    assert shell.ended == {1: Reason.EXPIRED}


def test_a_hopeless_request_is_told_while_the_slot_is_busy() -> None:
    shell = VirtualShell(new_batcher().handle)
    first, second = works(5.0, 0.2)
    shell.arrive(first)
    shell.arrive(second)
    shell.advance(0.3)  # the batch in front hangs; no event comes but time
    assert shell.ended == {2: Reason.HOPELESS}


def test_a_cancelled_request_never_reaches_upstream() -> None:
    shell = VirtualShell(new_batcher().handle)
    first, second = works(5.0, 5.0)
    shell.arrive(first)
    shell.arrive(second)
    shell.cancel(2)
    shell.finish(1, "done")
    assert batches(shell) == [[1]]


def test_a_batch_that_nobody_waits_for_is_broken_off_and_frees_the_slot() -> None:
    shell = VirtualShell(new_batcher().handle)
    for work in works(5.0, 5.0):
        shell.arrive(work)
    shell.cancel(1)
    assert batches(shell) == [[1], [2]]


def test_a_hanging_model_server_keeps_nobody_beyond_patience() -> None:
    shell = VirtualShell(new_batcher().handle)
    shell.arrive(Work(1, 0.5, give_up_s=1.0))
    shell.advance(2.0)
    assert shell.ended == {1: Reason.TIMEOUT}
    assert not shell.running


def test_of_a_small_batch_that_was_refused_each_member_is_tried_once_alone() -> None:
    shell = VirtualShell(new_batcher().handle)
    for work in works(5.0, 4.0, 4.1):
        shell.arrive(work)
    shell.finish(1, "done")
    shell.finish(2, "refused")
    shell.finish(3, "refused")  # refused alone: that is its answer
    shell.finish(4, "done")
    assert batches(shell) == [[1], [2, 3], [2], [3]]
    assert shell.ended == {1: "answered", 2: "refused", 3: "answered"}


def test_where_deadlines_can_be_believed_a_full_queue_turns_the_least_urgent_away() -> None:
    shell = VirtualShell(new_batcher(max_queue=2, displace=True).handle)
    for work in works(9.0, 5.0, 6.0):
        shell.arrive(work)
    shell.arrive(Work(4, 5.5))
    assert shell.ended == {3: Reason.EVICTED}
    shell.arrive(Work(5, 8.0))
    assert shell.ended == {3: Reason.EVICTED, 5: Reason.QUEUE_FULL}


def test_a_full_queue_turns_away_who_comes_last_however_urgent() -> None:
    shell = VirtualShell(new_batcher(max_queue=2).handle)
    for work in works(9.0, 5.0, 6.0, 2.0):
        shell.arrive(work)
    assert shell.ended == {4: Reason.QUEUE_FULL}


def test_late_requests_are_served_after_all_that_can_make_it() -> None:
    shell = VirtualShell(new_batcher(serve_late=True).handle)
    first, late, good = works(5.0, 0.1, 6.0)
    for work in (first, late, good):
        shell.arrive(work)
    shell.advance(1.0)
    shell.finish(1, "done")
    shell.finish(2, "done")
    assert batches(shell) == [[1], [3], [2]]


def test_the_slack_of_an_arrival_is_what_it_had_when_it_came_unless_it_was_hopeless() -> None:
    batcher = new_batcher()
    shell = VirtualShell(batcher.handle, now=5.0)
    shell.arrive(Work(1, 9.0))
    shell.arrive(Work(2, 5.0001))
    assert [batcher.arrivals.slack_s(share) for share in (0.0, 1.0)] == [4.0, 4.0]


def test_late_requests_take_places_and_are_the_first_to_lose_them() -> None:
    shell = VirtualShell(new_batcher(serve_late=True, max_queue=2).handle)
    first, late, good = works(9.0, 0.1, 8.0)
    for work in (first, late, good):
        shell.arrive(work)
    shell.advance(1.0)
    shell.arrive(Work(4, 8.0))
    assert shell.ended == {2: Reason.EVICTED}


def test_a_held_batch_does_not_keep_late_requests_from_an_idle_slot() -> None:
    shell = VirtualShell(new_batcher(serve_late=True, defer=DeferRules(mode="always")).handle)
    shell.arrive(works(30.0)[0])
    assert not shell.running, "held"
    shell.arrive(Work(2, -1.0, give_up_s=50.0))
    assert shell.running
    shell.finish(min(shell.running), "done")
    shell.finish(min(shell.running), "done")
    assert set(shell.ended) == {1, 2}


def test_a_hopeless_request_takes_nobodys_place() -> None:
    shell = VirtualShell(new_batcher(max_queue=2).handle)
    for work in works(100.0, 100.0, 100.0):
        shell.arrive(work)
    shell.arrive(Work(9, 1e-6))
    assert shell.ended == {9: Reason.QUEUE_FULL}


def test_with_a_model_that_calls_everything_hopeless_one_is_served_every_second() -> None:
    model = LatencyModel(LatencyParams(100.0, 0.0, 0.0, 0.0))
    shell = VirtualShell(new_batcher(model=model).handle)
    for key in range(1, 41):
        shell.arrive(Work(key, shell.now + 0.5, arrived_s=shell.now))
        shell.advance(0.1)
        if shell.running:
            shell.finish(min(shell.running), "done")
    assert 4 <= len(batches(shell)) <= 5
    assert list(shell.ended.values()).count(Reason.HOPELESS) == 40 - len(batches(shell))


def test_one_sample_ends_the_starvation() -> None:
    model = LatencyModel(LatencyParams(100.0, 0.0, 0.0, 0.0))
    batcher = new_batcher(model=model)
    for start_s, key in ((0.0, 1), (1.5, 2)):  # the first batch of a fresh server is no sample
        commands = _serve(batcher, key, start_s)
        assert any(isinstance(command, Dispatch) for command in commands)
    assert batcher.model.predict_s(1, 1.0) == pytest.approx(0.05, rel=0.3)


def _serve(batcher: Batcher, key: int, start_s: float) -> list[Any]:
    commands = batcher.handle(Arrived(Work(key, start_s + 1.0)), start_s)
    batch = next(command.batch for command in commands if isinstance(command, Dispatch))
    batcher.handle(BatchDone(batch, 0.05), start_s + 0.05)
    return commands


def test_a_request_that_only_more_cores_can_save_starts_at_once_and_waits_for_nothing() -> None:
    shell = VirtualShell(new_batcher(cores=0.1, reach=4.0).handle)
    shell.arrive(works(0.2)[0])  # 0.1 cores need 0.315 s, 4 cores 0.0225 s
    assert batches(shell) == [[1]]


def test_static_cores_drop_what_only_more_cores_could_save() -> None:
    model = exact_model()
    model.observe(Sample(1, 0.1, model.predict_s(1, 0.1)), 0.0)  # a fresh sample: no reason to doubt the model
    shell = VirtualShell(new_batcher(cores=0.1, reach=0.1, model=model).handle)
    shell.arrive(works(0.2)[0])
    assert shell.ended == {1: Reason.HOPELESS}


def test_always_deferring_waits_until_the_last_safe_start() -> None:
    batcher = new_batcher(defer=DeferRules(mode="always"))
    shell = VirtualShell(batcher.handle)
    shell.arrive(works(1.0)[0])
    assert not shell.running
    assert shell.wake_s == pytest.approx(1.0 - batcher.model.cautious_s(2, 1.0) - batcher.rules.defer.margin_s)
    shell.advance(1.0)
    assert batches(shell) == [[1]]


def test_a_deferred_batch_goes_as_soon_as_it_is_full() -> None:
    shell = VirtualShell(new_batcher(defer=DeferRules(mode="always")).handle)
    for work in works(1.0, 1.0, 1.0, 1.0):
        shell.arrive(work)
    assert batches(shell) == [[1, 2, 3, 4]]


def test_deferring_on_its_own_accord_never_keeps_a_request_longer_than_its_own_latency() -> None:
    batcher = new_batcher(defer=DeferRules(mode="auto"), max_rows=8)
    for step in range(200):
        batcher.arrivals.add(step * 0.02, 1, 9.0)  # 50 rows/s, 8 cores' worth of room
    shell = VirtualShell(batcher.handle, now=4.0)
    batcher.handle(CoresChanged(4.0), 4.0)
    for key in range(1, 5):
        shell.arrive(Work(key, 13.0, arrived_s=4.0))
    waited_from = shell.now
    shell.advance(1.0)
    started = next(at_s for at_s, command in shell.log if isinstance(command, Dispatch))
    assert 0 < started - waited_from <= batcher.model.predict_s(4, 4.0) + 1e-9


def test_one_client_that_asks_again_after_each_answer_never_waits() -> None:
    batcher = new_batcher(defer=DeferRules(mode="auto"))
    shell = VirtualShell(batcher.handle)
    for key in range(1, 20):
        shell.arrive(Work(key, shell.now + 5.0, arrived_s=shell.now))
        assert shell.running, "started in the same instant"
        shell.advance(0.04)
        shell.finish(min(shell.running), "done")


@pytest.mark.parametrize("bad", [{"max_rows": 0}, {"max_inflight": 0}, {"max_queue": 0}, {"probe_after_s": 0.0}])
def test_impossible_rules_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        BatchRules(**bad)


@pytest.mark.parametrize(("cores", "reach"), [(0.0, 1.0), (2.0, 1.0)])
def test_impossible_sizes_are_refused(cores: float, reach: float) -> None:
    with pytest.raises(ValueError, match="cores"):
        Batcher(BatchRules(), exact_model(), cores, reach)
