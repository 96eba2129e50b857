"""Leaving: SIGTERM, the quiet that must follow it, and the preStop hook that may come without it. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from knative_sponge.proxy.knative.drain import Drain
from tests.virtual_time import run_virtual


def timed(scenario: Callable[[Drain, Callable[[], float]], Coroutine[Any, Any, list[float]]]) -> list[float]:
    """Run a scenario of a pod that leaves after 30 quiet seconds; it returns moments, counted from its start."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        return [round(each, 6) for each in await scenario(Drain(30.0), lambda: loop.time() - begun_s)]

    return run_virtual(main)


def test_it_is_over_when_nobody_asked_for_the_quiet_time() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        await drain.terminate()
        assert drain.draining
        assert drain.over
        return [now()]

    assert timed(scenario) == [30.0]


def test_each_request_begins_the_quiet_time_anew() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        leaving = asyncio.ensure_future(drain.terminate())
        for _ in range(4):
            await asyncio.sleep(25.0)
            assert not drain.over
            drain.touch()
        await leaving
        return [now()]

    assert timed(scenario) == [130.0]


def test_the_hook_of_a_leaving_pod_waits_for_the_quiet_and_all_callers_are_released_together() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        async def hook(at_s: float) -> float:
            await asyncio.sleep(at_s)
            await drain.wait()
            return now()

        hooks = [asyncio.ensure_future(hook(at_s)) for at_s in (0.0, 0.9, 5.0, 40.0)]
        await asyncio.sleep(0.5)
        await drain.terminate()
        return list(await asyncio.gather(*hooks))

    assert timed(scenario) == [30.5, 30.5, 30.5, 40.0]


def test_the_hook_of_a_container_that_restarts_alone_is_released_after_a_second_and_the_pod_stays() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        hook = asyncio.ensure_future(drain.wait())
        await asyncio.sleep(0.5)
        assert drain.draining, "probes see it as leaving meanwhile"
        await hook
        return [now(), drain.draining, drain.over]

    assert timed(scenario) == [1.0, False, False]
