"""The baseline: first come, first served, fixed batches, no deadlines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.core.batching.events import Dispatch
from knative_sponge.core.batching.fifo import FifoBatcher, FifoRules
from knative_sponge.core.batching.work import Work
from knative_sponge.errors import Reason
from tests.core.batching.histories import Driver, exact_model


def fifo(**rules: Any) -> Driver:
    return Driver(FifoBatcher(FifoRules(**{"max_rows": 3, "timeout_s": 0.1, **rules}), exact_model(), 1.0).handle)


def batches(driver: Driver) -> list[list[int]]:
    return [[work.key for work in command.works] for _, command in driver.log if isinstance(command, Dispatch)]


def test_a_batch_starts_when_it_is_full() -> None:
    driver = fifo()
    for key in range(1, 4):
        driver.arrive(Work(key, 9.0 - key))  # later ones are more urgent; it does not care
    assert batches(driver) == [[1, 2, 3]]


def test_a_batch_starts_when_its_oldest_has_waited_for_the_timeout() -> None:
    driver = fifo()
    driver.arrive(Work(1, 9.0))
    driver.advance(0.05)
    driver.arrive(Work(2, 9.0, arrived_s=0.05))
    assert batches(driver) == []
    driver.advance(0.05)
    assert batches(driver) == [[1, 2]]


def test_nothing_is_dropped_for_its_deadline() -> None:
    driver = fifo()
    driver.arrive(Work(1, -5.0, give_up_s=9.0))
    driver.settle()
    assert driver.ended == {1: "answered"}


def test_a_full_queue_refuses_and_a_client_that_gave_up_is_told() -> None:
    driver = fifo(max_queue=1)
    driver.arrive(Work(1, 0.05, give_up_s=0.05))
    driver.arrive(Work(2, 9.0))
    driver.advance(0.06)
    assert driver.ended == {2: Reason.QUEUE_FULL, 1: Reason.TIMEOUT}


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
    driver = fifo(max_inflight=inflight)
    key = 0
    for action in history:
        match action:
            case ("arrive", rows, group, patience_s):
                key += 1
                at_s = driver.now
                driver.arrive(Work(key, at_s, rows=rows, group=group, arrived_s=at_s, give_up_s=at_s + patience_s))
            case ("cancel", which):
                driver.cancel(which)
            case ("finish", how):
                if driver.running:
                    driver.finish(min(driver.running), how)
            case ("advance", seconds):
                driver.advance(seconds)
        assert len(driver.running) <= inflight
        for works in driver.running.values():
            assert sum(work.rows for work in works) <= 3 or len(works) == 1
            assert len({work.group for work in works}) == 1
    driver.settle()
    assert set(driver.ended) == set(driver.works)
    assert all(times <= (2 if k in driver.was_refused else 1) for k, times in driver.dispatched.items())


@pytest.mark.parametrize("bad", [{"max_rows": 0}, {"max_inflight": 0}, {"max_queue": 0}, {"timeout_s": -1.0}])
def test_impossible_rules_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        FifoRules(**bad)
