"""When a node is divided anew, in virtual time: whenever something that its division rests on has changed, else not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from knative_sponge.core.resizing.events import Connected, PatchFailed
from tests.controller.sizing.divider_kit import Stage, staged


def test_a_node_where_pods_only_say_again_what_they_want_is_not_divided_anew() -> None:
    async def body(stage: Stage) -> None:
        assert await stage.divided()
        await stage.settle()
        for _ in range(30):
            await asyncio.sleep(1.0)
            stage.say_again()
            assert not await stage.divided()

    staged(body)


def test_a_size_that_is_kept_no_longer_goes_at_once_not_with_the_next_line() -> None:
    """Lines come each second; a shrink that waits for one of them is late by up to that."""

    async def body(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(stage.divider.run())
        stage.say("a", 0.9)
        await asyncio.sleep(1.4)
        resizer = stage.resizer("a")
        grown, sized_s = resizer.machine.asked, resizer.sized_s
        assert grown > 0.9
        stage.say("a", 0.2)
        await asyncio.sleep(0.2)
        while loop.time() < sized_s + 7.9:
            stage.say_again()
            await asyncio.sleep(min(1.0, sized_s + 7.95 - loop.time()))
        assert resizer.machine.asked == grown
        await asyncio.sleep(0.15)
        assert resizer.machine.asked < grown
        running.cancel()

    staged(body)


async def _more_cores(stage: Stage) -> None:
    stage.place.view = replace(stage.place.view, cores=9.0)


async def _more_cores_that_others_take(stage: Stage) -> None:
    stage.place.view = replace(stage.place.view, cores=9.0)
    stage.place.taken = 1.0


async def _others_take_more(stage: Stage) -> None:
    stage.place.taken = 1.0


async def _a_pod_waits(stage: Stage) -> None:
    stage.place.waits = 1.0


async def _another_pod(stage: Stage) -> None:
    stage.add("c")


async def _a_pod_less(stage: Stage) -> None:
    stage.remove("b")


async def _other_bounds(stage: Stage) -> None:
    stage.change("a", max_cores="3")


async def _another_want(stage: Stage) -> None:
    stage.say("a", 0.6)


async def _somebody_resizes(stage: Stage) -> None:
    stage.change("a", 0.7)


async def _silence(stage: Stage) -> None:
    await asyncio.sleep(3.5)


async def _a_word_after_silence(stage: Stage) -> None:
    await asyncio.sleep(3.5)
    assert await stage.divided()
    assert not await stage.divided()
    stage.say_again()


async def _a_refusal(stage: Stage) -> None:
    stage.resizer("a").machine.handle(PatchFailed(2.0, "refused", "no"), asyncio.get_running_loop().time())


async def _the_end_of_a_refusal(stage: Stage) -> None:
    await _a_refusal(stage)
    await stage.settle(20)
    while stage.resizer("a").machine.ceiling(asyncio.get_running_loop().time()) is not None:
        stage.say_again()
        assert not await stage.divided()
        await asyncio.sleep(1.0)
    stage.say_again()


async def _what_was_needed_is_forgotten(stage: Stage) -> None:
    stage.say("a", 0.505)  # too little to be given another size for
    await stage.divided()
    stage.say("a", 0.5)
    await asyncio.sleep(1.0)
    for _ in range(7):
        stage.say_again()
        assert not await stage.divided()
        await asyncio.sleep(1.1)
    stage.say_again()


async def _something_under_way(stage: Stage) -> None:
    stage.answers.clear()
    stage.resizer("a").handle(Connected())


async def _a_resizer_that_begins_anew(stage: Stage) -> None:
    stage.resizer("a")._begin_anew()


@pytest.mark.parametrize(
    "happens",
    [
        _more_cores, _more_cores_that_others_take, _others_take_more, _a_pod_waits, _another_pod, _a_pod_less,
        _other_bounds, _another_want, _somebody_resizes, _silence, _a_word_after_silence, _a_refusal,
        _the_end_of_a_refusal, _what_was_needed_is_forgotten, _something_under_way, _a_resizer_that_begins_anew,
    ],
    ids=lambda happens: happens.__name__.strip("_").replace("_", " "),
)  # fmt: skip
def test_whatever_a_division_rests_on_has_the_node_divided_anew(happens: Callable[[Stage], Awaitable[None]]) -> None:
    async def body(stage: Stage) -> None:
        await stage.settle()
        await happens(stage)
        assert await stage.divided()

    staged(body)


@pytest.mark.parametrize(("silent_s", "keeps"), [(2.9, False), (3.1, True)])
def test_a_pod_that_was_heard_and_then_says_nothing_for_3_s_keeps_its_size(silent_s: float, keeps: bool) -> None:
    """Whatever its last line said: the other pod, which is heard, gets what the silent one leaves."""

    async def body(stage: Stage) -> None:
        stage.say("a", 3.0)
        await stage.divided()
        await asyncio.sleep(1.2)
        stage.say("a", 3.0)
        size = stage.resizer("a").machine.asked
        assert size >= 3.0
        await asyncio.sleep(silent_s)
        stage.say("b", 7.5, curve=((0.1, 1000.0), (7.5, 0.0)))
        for _ in range(4):
            await stage.divided()
            await asyncio.sleep(0.2)
        asked = {name: stage.resizer(name).machine.asked for name in ("a", "b")}
        assert (asked["a"] == size) == keeps
        assert asked["b"] > 0.9 * (8.0 - size)
        assert sum(asked.values()) <= 8.0

    staged(body)


def test_a_node_is_not_divided_while_a_better_division_is_looked_for() -> None:
    cliff = ((0.1, 10.0), (4.9, 10.0), (5.0, 0.0))

    async def body(stage: Stage) -> None:
        await stage.settle()
        sizes = {name: stage.resizer(name).machine.asked for name in ("a", "b")}
        stage.optimizer.answers.clear()
        for name in ("a", "b"):
            stage.say(name, 5.0, cliff)
        assert await stage.divided()
        await asyncio.sleep(0.1)
        stage.say("a", 6.0, cliff)
        assert not await stage.divided()
        assert stage.optimizer.asked == 1
        assert sizes == {name: stage.resizer(name).machine.asked for name in ("a", "b")}
        stage.optimizer.answers.set()
        await asyncio.sleep(0.1)
        assert max(stage.resizer(name).machine.asked for name in ("a", "b")) >= 5.0
        assert await stage.divided()

    staged(body)


def test_a_size_that_was_kept_for_a_while_is_taken_back() -> None:
    async def body(stage: Stage) -> None:
        await stage.settle()
        stage.say("a", 2.0)
        await stage.divided()
        await asyncio.sleep(0.1)
        assert stage.resizer("a").machine.asked >= 2.0
        stage.say("a", 0.5)
        await stage.settle()
        assert stage.resizer("a").machine.asked < 2.0

    staged(body)


def test_a_node_with_something_under_way_is_divided_again_and_again() -> None:
    async def body(stage: Stage) -> None:
        await stage.settle()
        stage.answers.clear()
        stage.say("a", 2.0)
        await stage.divided()
        for _ in range(5):
            await asyncio.sleep(0.1)
            assert stage.resizer("a").moving
            assert await stage.divided()
        stage.answers.set()
        await stage.settle()

    staged(body)
