"""What a resize does when the kubelet defers it or calls it infeasible."""

from __future__ import annotations

from dataclasses import replace

from knative_sponge.core.resizing.events import (
    Patch,
)
from knative_sponge.core.resizing.facts import ResizePhase
from tests.core.resizing.resizing import kinds, steady


def test_a_deferred_growth_waits_and_its_announcement_is_taken_back() -> None:
    world = steady()
    world.mood = "defers"
    world.want(2.0)
    world.run(3)
    assert (world.resize.phase, world.resize.size) == (ResizePhase.DEFERRED, 1.0)
    assert (world.proxy.cores, world.proxy.coming, world.proxy.sure) == (1.0, None, False), "the kubelet tries again"
    assert kinds(world) == ["ResizeDeferred"]
    world.run(60)
    assert len(world.patched_s) == 1
    assert kinds(world) == ["ResizeDeferred"]
    world.mood = "works"
    world.run(2)
    assert world.proxy.cores == 2.0


def test_a_deferred_growth_may_be_given_another_target() -> None:
    world = steady()
    world.mood = "defers"
    world.want(2.0)
    world.run(3)
    world.want(0.5)
    world.run(3)
    assert (world.quota, world.proxy.cores, world.resize.phase) == (0.5, 0.5, ResizePhase.STEADY)


def test_a_shrink_that_a_deferred_growth_overtook_is_taken_back() -> None:
    world = steady()
    world.want(0.5)
    world.answer("done")
    world.advance(1.0)
    world.mood = "defers"
    world.want(2.0)
    world.run(3)
    assert (world.resize.phase, world.quota, world.proxy.cores) == (ResizePhase.DEFERRED, 1.0, 1.0)


def test_a_shrink_that_is_still_under_way_beside_a_deferred_growth_is_not_taken_back() -> None:
    world = steady()
    world.mood = "fails"
    world.want(0.5)
    world.run(2)
    world.want(2.0)
    world.advance(4.0)
    world.answer("done")
    world.mood = "defers"
    world.sync()  # its status still shows one core
    while world.watch:
        world.deliver()
    assert (world.resize.phase, world.shown, world.quota) == (ResizePhase.DEFERRED, 1.0, 0.5)
    assert world.proxy.cores == 0.5


def test_a_lost_answer_to_a_shrink_is_no_less_in_doubt_while_a_growth_is_deferred() -> None:
    world = steady()
    world.mood = "defers"
    world.want(2.0)
    world.run(3)
    world.want(0.5)
    world.answer("busy")
    world.show()
    assert (world.resize.phase, world.proxy.cores) == (ResizePhase.DEFERRED, 0.5)


def test_an_infeasible_size_is_halved_until_it_is_patched_back_and_all_of_it_not_asked_for_again_for_a_minute() -> None:
    world = steady()
    world.mood = "refuses"
    world.want(5.0)
    world.run(20)
    assert set(kinds(world)) == {"ResizeInfeasible"}
    asked = [command.cores for _, command in world.commands if isinstance(command, Patch)]
    assert asked[:3] == [5.0, 3.0, 2.0]
    assert asked[-1] == 1.0
    assert (world.spec, world.resize.phase, world.resize.ceiling(world.now)) == (1.0, ResizePhase.STEADY, 1.0)
    world.mood = "works"
    world.run(40)
    assert world.spec == 1.0
    world.run(30)
    assert world.quota == 5.0


def test_a_shrink_that_is_infeasible_is_taken_back_too() -> None:
    world = steady()
    world.mood = "refuses"
    world.want(0.5)
    world.run(4)
    assert (world.spec, world.resize.phase, world.resize.floor(world.now)) == (1.0, ResizePhase.STEADY, 1.0)
    assert world.proxy.cores == 1.0
    assert len(world.patched_s) == 2


def test_an_infeasible_resize_of_something_else_bounds_no_cpu() -> None:
    world = steady()
    world.tell(replace(world.object(), pending="Infeasible"))
    assert world.resize.ceiling(world.now) is world.resize.floor(world.now) is None
