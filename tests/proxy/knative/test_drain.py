"""Leaving: SIGTERM, the quiet that must follow it, and the preStop hook that may come without it. In virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from knative_sponge.asgi import Message, Scope
from knative_sponge.proxy.knative.drain import Drain, WaitForDrain
from knative_sponge.proxy.knative.node import Node
from tests.virtual_time import run_virtual

ADMIN: Scope = {"type": "http", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8022)}


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


async def asked(endpoint: WaitForDrain, client: str = "127.0.0.1") -> int:
    """The status that a caller from this address is told."""
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Message:
        raise AssertionError("a hook has no body")

    await endpoint({**ADMIN, "client": (client, 5)}, receive, send)
    return statuses[0]


def test_a_restart_that_follows_another_does_not_make_probes_fail_again_at_once() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        failing: list[float] = []
        for _ in range(45):
            hook = asyncio.ensure_future(drain.wait())
            await asyncio.sleep(0.5)
            failing += [now()] if drain.draining else []
            await hook
        return [failing[0], failing[-1], len(failing), now()]

    assert timed(scenario) == [0.5, 44.5, 5, 45.0]


def test_a_notice_is_not_drawn_out_by_callers_that_join_it() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        hooks = []
        for _ in range(9):
            hooks.append(asyncio.ensure_future(drain.wait()))
            await asyncio.sleep(0.3)
            if not drain.draining:
                break
        ended_s = now()
        await asyncio.gather(*hooks)
        return [ended_s]

    assert timed(scenario) == [1.2]


def test_strangers_make_no_probe_fail_and_are_told_so() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        endpoint = WaitForDrain(drain, Node((), Path("/nowhere")))
        asking = asyncio.ensure_future(asked(endpoint, "10.1.2.3"))
        for _ in range(9):
            await asyncio.sleep(0.1)
            assert not drain.draining
        return [await asking, now()]

    assert timed(scenario) == [403, 1.0]


def test_a_hook_whose_address_nobody_knows_is_kept_all_the_same() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        endpoint = WaitForDrain(drain, Node((), Path("/nowhere")))
        asking = asyncio.ensure_future(asked(endpoint, "100.64.0.2"))
        await asyncio.sleep(0.2)
        await drain.terminate()
        return [await asking, now()]

    assert timed(scenario) == [200, 30.2]


def test_strangers_that_wait_are_few_and_take_no_place_of_the_nodes() -> None:
    async def scenario(drain: Drain, now: Callable[[], float]) -> list[float]:
        endpoint = WaitForDrain(drain, Node((), Path("/nowhere")))
        strangers = [asyncio.ensure_future(asked(endpoint, "10.1.2.3")) for _ in range(1000)]
        statuses = Counter(await asyncio.gather(*strangers, asked(endpoint)))
        return [statuses[403], statuses[503], statuses[200], now()]

    assert timed(scenario) == [64, 936, 1, 1.0]
