"""How often a node is looked at and divided while the divider runs, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.controller.sizing.divider_kit import Stage, staged


async def _running(stage: Stage, seconds: float) -> list[float]:
    """Let it run while the pods say again what they want. Returns when the node was divided, from the start."""
    loop = asyncio.get_running_loop()
    begun_s, row, divided = loop.time(), stage.row, []
    for step in range(1, round(seconds * 100) + 1):
        if step % 100 == 0:
            stage.say_again()
        await asyncio.sleep(begun_s + step / 100 - loop.time())
        if (now := stage.row) is not row:
            row = now
            divided.append(loop.time() - begun_s)
    return divided


def run_along(body: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole(stage: Stage) -> None:
        await stage.settle()
        task = asyncio.create_task(stage.divider.run())
        try:
            await _running(stage, 10.0)
            await body(stage)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    staged(whole)


def test_a_quiet_node_is_hardly_looked_at_and_all_the_same_divided_at_once_when_a_pod_wants_another_size() -> None:
    async def body(stage: Stage) -> None:
        before = stage.place.looks
        assert await _running(stage, 30.0) == []
        assert stage.place.looks - before <= 12
        stage.say("a", 1.0)
        first, *_ = await _running(stage, 1.0)
        assert first < 0.05

    run_along(body)


def test_what_nobody_tells_of_is_noticed_soon() -> None:
    async def body(stage: Stage) -> None:
        stage.place.taken = 1.0
        first, *_ = await _running(stage, 10.0)
        assert first < 5.0

    run_along(body)


def test_a_need_that_fades_is_noticed_with_the_next_line() -> None:
    async def body(stage: Stage) -> None:
        stage.say("a", 2.0)
        await _running(stage, 0.5)
        asked = stage.resizer("a").machine.asked
        stage.say("a", 0.5)
        await _running(stage, 7.4)
        assert stage.resizer("a").machine.asked == asked > 0.5
        await _running(stage, 1.2)
        assert stage.resizer("a").machine.asked < asked

    run_along(body)


def test_so_is_the_end_of_the_time_that_a_size_is_kept() -> None:
    async def body(stage: Stage) -> None:
        stage.say("a", 1.5)
        await _running(stage, 0.5)
        stage.say("a", 4.0)
        await _running(stage, 0.1)
        stage.say("a", 0.5)  # forgotten before the size that is patched in half a second may be taken back
        await _running(stage, 1.0)
        resizer = stage.resizer("a")
        asked, kept_s = resizer.machine.asked, resizer.sized_s + 8.0 - asyncio.get_running_loop().time()
        await _running(stage, kept_s - 0.02)
        assert resizer.machine.asked == asked > 2.5
        await _running(stage, 1.1)
        assert resizer.machine.asked < asked

    run_along(body)


def test_the_first_word_after_a_silence_has_the_node_divided_at_once() -> None:
    """The pod kept its size meanwhile, whatever it wanted. What it says is what it said before."""

    async def body(stage: Stage) -> None:
        line = stage.lines.pop("a")
        assert len(await _running(stage, 9.5)) == 1, "the silence was noticed"
        stage.lines["a"] = line
        stage.say("a", line.want)
        first, *_ = await _running(stage, 5.0)
        assert first < 0.05

    run_along(body)


def test_a_node_that_is_short_is_divided_twice_a_second() -> None:
    async def body(stage: Stage) -> None:
        for name in ("a", "b"):
            stage.say(name, 6.0)
        await _running(stage, 5.0)
        assert 8 <= len(await _running(stage, 5.0)) <= 12

    run_along(body)


def test_others_have_their_turn_while_many_nodes_are_divided() -> None:
    async def body(stage: Stage) -> None:
        slow = iter(range(10**6))
        stage.divider._clock = lambda: next(slow) * 0.001  # each look at the clock takes a millisecond
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await stage.divider._divide_all({f"n{number}" for number in range(100)})
        task.cancel()
        assert turns >= 10

    staged(body)
