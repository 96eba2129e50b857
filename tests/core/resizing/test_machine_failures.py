"""What a resize does when API server, kubelet or proxy do not do what they are asked."""

from __future__ import annotations

from itertools import pairwise

import pytest

from knative_sponge.core.resizing.events import (
    Connected,
    FailureKind,
    NodeChanged,
    Patch,
    PatchDone,
    PatchFailed,
    QuotaFreed,
    Report,
    Seen,
    Target,
    Tell,
    WakeAt,
)
from knative_sponge.core.resizing.machine import PodResize, ResizePhase
from tests.core.resizing.resizing import commands, kinds, steady


@pytest.mark.parametrize("kind", ["refused", "quota"])
def test_a_refused_shrink_is_taken_back_and_not_tried_again_for_a_minute(kind: FailureKind) -> None:
    world = steady()
    world.want(0.5)
    commands(world)
    world.answer(kind)
    assert commands(world) == [
        Report("ResizeFailed", f"CPU 500m was refused: {kind}, it says"),
        Tell("actuated", 1.0),
    ]
    assert world.resize.floor(world.now) == 1.0
    world.run(59)
    assert commands(world) == []
    world.run(2)
    assert Patch(0.5) in commands(world)


@pytest.mark.parametrize(("kind", "ceiling"), [("refused", 1.0), ("quota", 1.5)])
def test_a_refused_growth_leaves_a_ceiling_below_which_sizes_still_move(kind: FailureKind, ceiling: float) -> None:
    world = steady()
    world.want(2.0)
    world.answer(kind)
    assert world.resize.ceiling(world.now) == ceiling
    world.want(3.0)
    world.run(5)
    assert Patch(3.0) not in commands(world)
    assert world.quota == ceiling
    world.want(0.5)
    world.run(5)
    assert world.quota == 0.5
    world.want(3.0)
    world.run(5)
    assert world.quota == ceiling
    world.run(60)
    assert world.quota == 3.0


def test_a_quota_that_may_have_room_again_is_asked_at_once_and_the_node_has_no_say_in_it() -> None:
    world = steady()
    world.want(2.0)
    world.answer("quota")
    world.tell(NodeChanged())
    assert world.resize.ceiling(world.now) == 1.5
    world.tell(QuotaFreed())
    assert world.resize.ceiling(world.now) is None
    world.run(3)
    assert world.quota == 2.0


def test_a_node_with_more_to_give_is_asked_again() -> None:
    world = steady()
    world.mood = "refuses"
    world.want(2.0)
    world.run(20)
    assert world.resize.ceiling(world.now) == 1.0
    world.mood = "works"
    world.tell(QuotaFreed())
    assert world.resize.ceiling(world.now) == 1.0
    world.tell(NodeChanged())
    world.run(3)
    assert world.quota == 2.0


def test_when_more_than_the_need_is_refused_the_need_is_asked_for_next() -> None:
    world = steady()
    world.tell(Target(3.0, need=1.6))
    world.answer("quota")
    world.run(3)
    assert world.quota == 1.6


def test_a_conflict_is_tried_again_after_the_spacing() -> None:
    world = steady()
    world.want(2.0)
    world.answer("conflict")
    first_s = world.now
    commands(world)
    world.advance(1.0)
    assert world.commands == [(first_s + 1.0, Patch(2.0))]


def test_a_busy_server_is_asked_again_after_growing_waits() -> None:
    world = steady()
    world.want(2.0)
    waits = []
    for _ in range(7):
        world.answer("busy")
        failed_s = world.now
        world.advance(40.0)
        waits.append(world.patched_s[-1] - failed_s)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_after_a_lost_answer_to_a_shrink_the_proxy_counts_on_the_smaller_size_until_that_is_known() -> None:
    world = steady()
    world.want(0.5)
    world.answer("busy")  # it was not applied, but nobody knows
    world.want(1.0)
    assert (world.proxy.cores, world.resize.size) == (0.5, 0.5)
    world.run(3)
    assert (world.proxy.cores, world.resize.phase) == (1.0, ResizePhase.STEADY)


def test_a_lost_answer_to_a_growth_counts_on_the_node() -> None:
    world = steady()
    world.want(2.0)
    world.answer("busy")
    world.want(1.0)
    assert world.resize.committed == 2.0


def test_a_size_that_was_refused_was_never_accepted() -> None:
    world = steady()
    world.want(2.0)
    assert (world.resize.asked, world.resize.accepted) == (2.0, 1.0)
    world.answer("refused")
    assert (world.resize.asked, world.resize.accepted) == (1.0, 1.0)
    world.want(0.5)
    world.run(3)
    assert world.resize.accepted == 0.5


def test_a_pod_that_is_gone_is_left_alone() -> None:
    world = steady()
    world.want(2.0)
    world.answer("gone")
    commands(world)
    world.want(3.0)
    world.tell(Connected())
    world.run(20)
    assert world.resize.phase is ResizePhase.GONE
    assert commands(world) == []
    assert world.wake_s is None


def test_a_failing_kubelet_is_asked_again_after_growing_waits_and_people_are_told_once() -> None:
    world = steady()
    world.mood = "fails"
    world.want(2.0)
    world.run(220)
    assert (world.resize.phase, world.proxy.cores) == (ResizePhase.ERROR, 1.0)
    gaps = [later - earlier for earlier, later in pairwise(world.patched_s)]
    assert gaps == pytest.approx([5.0, 10.0, 20.0, 40.0, 60.0, 60.0], abs=0.6)
    assert kinds(world) == ["ResizeFailed"]
    world.mood = "works"
    world.run(3)
    assert world.proxy.cores == 2.0


def test_a_resize_that_nothing_confirms_is_reported_once_and_goes_on() -> None:
    world = steady()
    world.want(2.0)
    world.answer("done")
    world.advance(9.9)
    assert kinds(world) == []
    world.advance(0.2)
    assert kinds(world) == ["ResizeStuck"]
    world.advance(100.0)
    assert kinds(world) == ["ResizeStuck"]
    assert len(world.patched_s) == 1
    world.run(2)
    assert world.proxy.cores == 2.0


def test_a_proxy_that_was_not_reached_is_told_again_after_growing_waits() -> None:
    world = steady()
    world.proxy_up = False
    world.tell(Connected())
    world.advance(100.0)
    told_s = [at_s for at_s, command in world.commands if command == Tell("actuated", 1.0)]
    gaps = [later - earlier for earlier, later in pairwise(told_s)]
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0])


def test_a_shrink_does_not_wait_for_a_proxy_that_is_down() -> None:
    world = steady()
    world.proxy_up = False
    world.tell(Connected())
    commands(world)
    world.want(0.5)
    assert commands(world) == [Tell("patched", 0.5), Patch(0.5)]


def test_something_beside_the_cores_is_patched_until_it_was_accepted() -> None:
    world = steady()
    world.want_more()
    for failure in ("conflict", "busy", "lost"):
        world.answer(failure)
        world.advance(2.5)
        assert world.in_flight == [1.0]
    world.answer("done")
    world.run(60)
    assert len(world.patched_s) == 4
    assert world.resize.ceiling(world.now) is None


def test_a_patch_that_changed_nothing_is_no_failure_of_the_kubelet() -> None:
    resize = PodResize(0.0)
    resize.handle(Seen(1.0, 0.5, generation=1, observed=1), 0.0)
    resize.handle(Target(2.0), 1.0)
    resize.handle(PatchFailed(2.0, "busy", "timeout"), 2.0)  # it was not applied, but nobody knows
    resize.handle(Target(1.0), 5.0)
    resize.handle(PatchDone(1.0, 1), 6.0)
    commands = resize.handle(Seen(1.0, 0.5, progress="Error", generation=1, observed=1), 10.0)
    assert WakeAt(15.0) in commands, "the first wait after an error"
