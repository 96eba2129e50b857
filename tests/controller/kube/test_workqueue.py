"""Keys waiting for a worker."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.kube.workqueue import WorkQueue
from tests.controller.revision_kit import run

A, B = ("ns", "a"), ("ns", "b")


def queue() -> WorkQueue:
    return WorkQueue(random.Random(1))


def test_a_key_added_twice_is_looked_at_once() -> None:
    async def body() -> None:
        work = queue()
        for key in (A, B, A, B):
            work.add(key)
        assert [await work.take(), await work.take()] == [A, B]
        assert len(work) == 0

    run(body())


def test_a_key_that_changes_while_it_is_worked_on_comes_again_but_only_afterwards() -> None:
    async def body() -> None:
        work = queue()
        work.add(A)
        assert await work.take() == A
        work.add(A)
        work.add(B)
        assert await work.take() == B
        second = asyncio.create_task(work.take())
        await asyncio.sleep(0)
        assert not second.done()
        work.done(A)
        assert await second == A

    run(body())


def test_a_key_for_later_comes_by_itself_and_once() -> None:
    async def body() -> None:
        work = queue()
        work.add_later(A, 3600.0)
        work.add_later(A, 0.001)
        assert await work.take() == A
        work.done(A)
        assert len(work) == 0
        work.add_later(B, 3600.0)
        work.add(B)  # sooner: the wait is over
        assert await work.take() == B
        assert len(work) == 0

    run(body())


def test_a_failed_key_comes_back_later_each_time() -> None:
    async def body() -> None:
        work = queue()
        work.add(A)
        waits = []
        for _ in range(3):
            assert await work.take() == A
            waits.append(work.failed(A))
            assert len(work) == 1
            work.add(A)  # sooner than its wait: whoever adds it knows of a change
        assert waits[0] < waits[1] < waits[2]
        assert await work.take() == A
        work.done(A)
        work.add(A)
        assert await work.take() == A
        assert work.failed(A) <= 0.2
        work.close()
        assert len(work) == 0

    run(body())


def test_a_failed_key_comes_back_by_itself() -> None:
    async def body() -> None:
        work = queue()
        work.add(A)
        await work.take()
        work.failed(A)
        assert await work.take() == A

    run(body())


def test_several_workers_share_the_keys() -> None:
    async def body() -> None:
        work = queue()
        takers = [asyncio.create_task(work.take()) for _ in range(3)]
        await asyncio.sleep(0)
        for key in (A, B, ("ns", "c")):
            work.add(key)
        assert set(await asyncio.gather(*takers)) == {A, B, ("ns", "c")}

    run(body())


@given(st.lists(st.sampled_from(["add a", "add b", "take", "done", "failed"]), max_size=40))
def test_no_key_is_held_twice_and_none_is_lost(steps: list[str]) -> None:
    async def body() -> None:
        work = queue()
        held: list[tuple[str, str]] = []
        unseen: set[tuple[str, str]] = set()  # added, and not taken since
        failed: set[tuple[str, str]] = set()
        for step in steps:
            match step.split():
                case ["add", letter]:
                    work.add(("ns", letter))
                    unseen.add(("ns", letter))
                    failed.discard(("ns", letter))
                case ["take"] if unseen - set(held):
                    key = await work.take()
                    assert key not in held
                    held.append(key)
                    unseen.discard(key)
                case ["done"] if held:
                    work.done(held.pop())
                case ["failed"] if held:
                    key = held.pop()
                    work.failed(key)
                    if key not in unseen:
                        failed.add(key)
        assert len(work) == len(unseen | failed)
        work.close()

    run(body())
