"""The batcher against its invariants (docs/design.md §6), over generated histories."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.core.batching.batcher import Batcher
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import Dispatch, Refuse
from knative_sponge.core.batching.work import Work
from knative_sponge.errors import Reason
from tests.core.batching.virtual_shell import VirtualShell, new_batcher

ACTION = st.one_of(
    st.tuples(
        st.just("arrive"),
        st.integers(-1, 40).map(lambda n: n / 50),  # slack
        st.sampled_from([1, 1, 1, 2, 3, 6]),  # rows
        st.sampled_from("aab"),  # group
        st.sampled_from([0.0, 0.1, 5.0]),  # patience behind the deadline
    ),
    st.tuples(st.just("cancel"), st.integers(1, 30)),
    st.tuples(st.just("finish"), st.sampled_from(["done", "done", "failed", "refused"])),
    st.tuples(st.just("resize"), st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])),
    st.tuples(st.just("advance"), st.integers(0, 30).map(lambda n: n / 100)),
)
HISTORY = st.lists(ACTION, min_size=1, max_size=40)
RULES = st.fixed_dictionaries(
    {
        "max_rows": st.integers(1, 5),
        "max_inflight": st.integers(1, 3),
        "max_queue": st.sampled_from([3, 100]),
        "serve_late": st.booleans(),
        "defer": st.sampled_from(["never", "auto", "always"]).map(lambda mode: DeferRules(mode=mode)),
    }
)


def play(batcher: Batcher, history: list[tuple[Any, ...]]) -> VirtualShell:
    shell = VirtualShell(batcher.handle)
    key = 0
    for action in history:
        match action:
            case ("arrive", slack_s, rows, group, patience_s):
                key += 1
                deadline_s = shell.now + slack_s
                shell.arrive(
                    Work(
                        key,
                        deadline_s,
                        rows=rows,
                        group=group,
                        arrived_s=shell.now,
                        give_up_s=max(deadline_s, shell.now) + patience_s,
                    )
                )
            case ("cancel", which):
                shell.cancel(which)
            case ("finish", how):
                if shell.running:
                    shell.finish(min(shell.running), how)
            case ("resize", cores):
                shell.resize(cores)
            case ("advance", seconds):
                shell.advance(seconds)
        check(batcher, shell)
    shell.settle()
    return shell


def check(batcher: Batcher, shell: VirtualShell) -> None:
    """What holds after every event."""
    rules = batcher.rules
    assert set(shell.running) == set(batcher.running), "slots and upstream calls are the same thing"
    assert len(shell.running) <= rules.max_inflight
    assert {work.key for work in batcher.queue} | {work.key for work in batcher.late} == shell.waiting, (
        "a request is lost or kept too long"
    )
    assert len(shell.waiting) <= rules.max_queue + rules.max_rows * rules.max_inflight
    for works in shell.running.values():
        assert sum(work.rows for work in works) <= rules.max_rows or len(works) == 1
        assert len({work.group for work in works}) == 1
        assert len({work.cohort for work in works}) == 1
    hopeless = [
        work for work in batcher.queue if work.deadline_s - batcher._latency_s(work.rows, batcher.reach) < shell.now
    ]
    assert not hopeless or batcher.queue.first() not in hopeless, "a head that cannot make it is told at once"
    if rules.defer.mode == "never" and len(shell.running) < rules.max_inflight:
        assert not shell.waiting, "a free slot and a request that waits for nothing"


@settings(max_examples=10_000)
@given(HISTORY, RULES)
def test_no_history_loses_doubles_or_misroutes_a_request(history: list[tuple[Any, ...]], rules: dict[str, Any]) -> None:
    batcher = new_batcher(**rules)
    shell = play(batcher, history)
    assert set(shell.ended) == set(shell.works), "every request ends, exactly once"
    for key, times in shell.dispatched.items():
        assert times <= (3 if key in shell.was_refused else 1), "sent upstream twice"
    for at_s, command in shell.log:
        if isinstance(command, Refuse):
            justified(command, at_s, batcher, shell)


def justified(refusal: Refuse, at_s: float, batcher: Batcher, shell: VirtualShell) -> None:
    work, reason = refusal.work, refusal.reason
    if reason is Reason.EXPIRED:
        assert work.deadline_s <= at_s
    elif reason is Reason.HOPELESS:
        assert at_s + batcher._latency_s(work.rows, batcher.reach) > work.deadline_s - 1e-9
        assert work.deadline_s > at_s
    elif reason is Reason.TIMEOUT:
        assert work.give_up_s <= at_s
    else:
        assert reason in (Reason.EVICTED, Reason.QUEUE_FULL)
        assert batcher.rules.max_queue == 3


@settings(max_examples=1500)
@given(HISTORY)
def test_without_groups_batches_take_the_most_urgent_that_are_not_passed_over(history: list[tuple[Any, ...]]) -> None:
    """A work is only left behind by a later deadline when it could not have been carried itself."""
    batcher = new_batcher(max_inflight=1)
    shell = VirtualShell(batcher.handle)
    key = 0
    for action in history:
        before = {work.key: work for work in batcher.queue}
        if action[0] == "arrive":
            key += 1
            work = Work(key, shell.now + action[1], rows=1)
            before[key] = work
            shell.log.clear()
            shell.arrive(work)
        elif action[0] == "finish" and shell.running:
            shell.log.clear()
            shell.finish(min(shell.running), "done")
        elif action[0] == "advance":
            shell.advance(action[1])
            continue
        else:
            continue
        for _, command in shell.log:
            if isinstance(command, Dispatch):
                sent = {work.key for work in command.works}
                head_s = command.works[0].deadline_s
                for other in before.values():
                    if other.key not in sent and other.key not in shell.ended and other.deadline_s < head_s:
                        rows = sum(work.rows for work in command.works)
                        together = batcher.model.cautious_s(min(rows + 1, 4), batcher.cores)
                        assert shell.now + together > other.deadline_s
