"""Slots of the breaker in virtual time: never more than the concurrency, none lost, first come first served."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.errors import QueueFull
from knative_sponge.proxy.knative.breaker import Breaker, breaker_for
from tests.virtual_time import run_virtual


def test_a_turn_that_comes_to_somebody_who_has_just_left_goes_to_the_next() -> None:
    async def scenario() -> None:
        breaker = Breaker(1)
        began: list[int] = []

        async def visit(number: int) -> None:
            async with breaker:
                began.append(number)

        async with breaker:
            first, second = (asyncio.create_task(visit(number)) for number in (1, 2))
            await asyncio.sleep(0)
        # It was given a slot, but has not run since.
        first.cancel()
        await second
        assert (began, breaker.running) == ([2], 0)

    run_virtual(scenario)


def test_a_concurrency_of_nothing_is_no_breaker_and_below_it_is_refused() -> None:
    assert breaker_for(0) is None
    with pytest.raises(ValueError, match="concurrency"):
        Breaker(0)


Step = tuple[str, int]


@given(
    st.integers(1, 3), st.lists(st.tuples(st.sampled_from(["come", "end", "cancel"]), st.integers(0, 40)), max_size=60)
)
def test_turns_are_never_exceeded_never_lost_and_given_in_order(concurrency: int, steps: list[Step]) -> None:
    """Against a list: the first `concurrency` of those still there are the ones that have a slot."""

    async def scenario() -> None:
        breaker = Breaker(concurrency)
        there: list[tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]] = []

        async def visit(began: asyncio.Event, end: asyncio.Event) -> None:
            breaker.admit()
            try:
                async with breaker:
                    began.set()
                    await end.wait()
            finally:
                breaker.leave()

        for kind, which in steps:
            if kind == "come":
                if len(there) == 11 * concurrency:
                    with pytest.raises(QueueFull):
                        breaker.admit()
                else:
                    began, end = asyncio.Event(), asyncio.Event()
                    there.append((asyncio.create_task(visit(began, end)), began, end))
            elif there:
                # One that waits can only leave; one that runs can end too.
                task, began, end = there.pop(which % min(len(there), concurrency if kind == "end" else 99))
                if kind == "end":
                    end.set()
                else:
                    task.cancel()
            if which % 3:  # otherwise the next step comes in the same turn of the loop
                await asyncio.sleep(0.001)
                assert [began.is_set() for _, began, _ in there] == [n < concurrency for n in range(len(there))]
                assert breaker.admitted == len(there)
                assert breaker.running == min(len(there), concurrency)
        await asyncio.sleep(0.001)
        for task, _, _ in there:
            task.cancel()
        await asyncio.sleep(0.001)
        assert (breaker.admitted, breaker.running) == (0, 0)

    run_virtual(scenario)
