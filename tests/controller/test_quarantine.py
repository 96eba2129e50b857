"""An object that a loop cannot handle is told once, left alone for longer each time, and forgotten never too early."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from knative_sponge.controller import quarantine
from knative_sponge.controller.quarantine import Failures, named, text


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.counted: list[str] = []
        self.failures = Failures(self.counted.append, lambda: self.now)
        self.steps = self.failures.of("sizes")


def fails(text: str = "no") -> Any:
    def step() -> None:
        raise ZeroDivisionError(text)

    return step


def test_a_step_that_works_gives_its_result() -> None:
    assert World().steps.run("a", lambda: 5) == 5


def test_a_step_that_fails_is_told_once_with_its_traceback_and_counted_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    for _ in range(5):
        assert world.steps.run(("ns", "a"), fails()) is None
        world.now += 1000.0
    world.steps.run(("ns", "b"), fails())
    assert world.counted == ["sizes"] * 6
    first, second = (record.message for record in caplog.records)
    assert first.startswith("sizes: ns/a cannot be handled: ZeroDivisionError: no\n")
    assert "raise ZeroDivisionError(text)" in first
    assert second == "sizes: ns/b cannot be handled: ZeroDivisionError: no"


def test_an_object_is_left_alone_for_longer_each_time_and_no_other_with_it() -> None:
    world, calls = World(), []

    def step() -> None:
        calls.append(world.now)
        raise KeyError

    for tick in range(8000):
        world.now = tick / 10
        world.steps.run("a", step)
        assert world.steps.run("b", lambda: True)
    waits = [round(after - before) for before, after in pairwise(calls)]
    assert waits[:6] == [1, 2, 4, 8, 16, 32]
    assert max(waits) <= quarantine.WAITS_S[1]


def test_a_success_ends_the_waits() -> None:
    world = World()
    for _ in range(4):
        world.steps.run("a", fails())
        world.now += 100.0
    assert world.steps.run("a", lambda: True)
    world.steps.run("a", fails())
    assert world.steps.left_s("a") == 1.0


def test_a_step_that_waits_is_kept_from_others_as_well() -> None:
    world = World()

    async def step() -> int:
        raise ValueError

    async def body() -> None:
        assert await world.steps.wait_for("a", step) is None
        assert await world.steps.wait_for("a", step) is None

    asyncio.run(body())
    assert world.counted == ["sizes"]


def test_a_cancellation_is_no_failure() -> None:
    world = World()

    async def step() -> None:
        raise asyncio.CancelledError

    async def body() -> None:
        with pytest.raises(asyncio.CancelledError):
            await world.steps.wait_for("a", step)

    asyncio.run(body())
    assert not world.counted


def test_what_is_remembered_and_what_is_said_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    for number in range(5000):
        world.steps.run(number, fails("x" * 100_000))
    assert len(world.steps._cases) == 4096
    assert max(len(record.message) for record in caplog.records[1:]) < 300


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_an_error_that_cannot_be_said_is_no_second_error() -> None:
    assert text(Unspeakable()) == "it cannot be said what"
    assert named(("", "")) == "a round"
