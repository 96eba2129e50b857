"""The baseline: first come, first served, fixed batches, no deadlines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.core.batching.events import Dispatch
from knative_sponge.core.batching.fifo_batcher import FifoBatcher, FifoRules
from knative_sponge.core.batching.work import Work
from knative_sponge.errors import Reason
from tests.core.batching.virtual_shell import VirtualShell, exact_model


def fifo(**rules: Any) -> VirtualShell:
    return VirtualShell(FifoBatcher(FifoRules(**{"max_rows": 3, "timeout_s": 0.1, **rules}), exact_model(), 1.0).handle)


def batches(shell: VirtualShell) -> list[list[int]]:
    return [[work.key for work in command.works] for _, command in shell.log if isinstance(command, Dispatch)]


def test_a_batch_starts_when_it_is_full() -> None:
    shell = fifo()
    for key in range(1, 4):
        shell.arrive(Work(key, 9.0 - key))  # later ones are more urgent; it does not care
    assert batches(shell) == [[1, 2, 3]]


def test_a_batch_starts_when_its_oldest_has_waited_for_the_timeout() -> None:
    shell = fifo()
    shell.arrive(Work(1, 9.0))
    shell.advance(0.05)
    shell.arrive(Work(2, 9.0, arrived_s=0.05))
    assert batches(shell) == []
    shell.advance(0.05)
    assert batches(shell) == [[1, 2]]


def test_nothing_is_dropped_for_its_deadline() -> None:
    shell = fifo()
    shell.arrive(Work(1, -5.0, give_up_s=9.0))
    shell.settle()
    assert shell.ended == {1: "answered"}


def test_a_full_queue_refuses_and_a_client_that_gave_up_is_told() -> None:
    shell = fifo(max_queue=1)
    shell.arrive(Work(1, 0.05, give_up_s=0.05))
    shell.arrive(Work(2, 9.0))
    shell.advance(0.06)
    assert shell.ended == {2: Reason.QUEUE_FULL, 1: Reason.TIMEOUT}


@settings(max_examples=500)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("arrive"), st.integers(1, 4), st.sampled_from("ab"), st.sampled_from([0.1, 9.0])),
            st.tuples(st.just("cancel"), st.integers(1, 20)),
            st.tuples(st.just("finish"), st.sampled_from(["done", "failed", "refused"])),
            st.tuples(st.just("advance"), st.integers(0, 20).map(lambda n: n / 100)),
        ),
        max_size=40,
    ),
    st.integers(1, 2),
)
def test_no_history_loses_or_doubles_a_request(history: list[tuple[Any, ...]], inflight: int) -> None:
    shell = fifo(max_inflight=inflight)
    key = 0
    for action in history:
        match action:
            case ("arrive", rows, group, patience_s):
                key += 1
                at_s = shell.now
                shell.arrive(Work(key, at_s, rows=rows, group=group, arrived_s=at_s, give_up_s=at_s + patience_s))
            case ("cancel", which):
                shell.cancel(which)
            case ("finish", how):
                if shell.running:
                    shell.finish(min(shell.running), how)
            case ("advance", seconds):
                shell.advance(seconds)
        assert len(shell.running) <= inflight
        for works in shell.running.values():
            assert sum(work.rows for work in works) <= 3 or len(works) == 1
            assert len({work.group for work in works}) == 1
    shell.settle()
    assert set(shell.ended) == set(shell.works)
    assert all(times <= (2 if k in shell.was_refused else 1) for k, times in shell.dispatched.items())


@pytest.mark.parametrize("bad", [{"max_rows": 0}, {"max_inflight": 0}, {"max_queue": 0}, {"timeout_s": -1.0}])
def test_impossible_rules_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        FifoRules(**bad)
