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
from knative_sponge.core.resizing.facts import ResizePhase
from knative_sponge.core.resizing.machine import PodResize
from knative_sponge.core.resizing.phase import Phase
from tests.core.resizing.simulated_cluster import commands, kinds, steady


@pytest.mark.parametrize("kind", ["refused", "quota"])
def test_a_refused_shrink_is_taken_back_and_not_tried_again_for_a_minute(kind: FailureKind) -> None:
    cluster = steady()
    cluster.want(0.5)
    commands(cluster)
    cluster.answer(kind)
    assert commands(cluster) == [
        Report("ResizeFailed", f"CPU 500m was refused: {kind}, it says"),
        Tell(Phase.ACTUATED, 1.0),
    ]
    assert cluster.resize.floor(cluster.now) == 1.0
    cluster.run(59)
    assert commands(cluster) == []
    cluster.run(2)
    assert Patch(0.5) in commands(cluster)


@pytest.mark.parametrize(("kind", "ceiling"), [("refused", 1.0), ("quota", 1.5)])
def test_a_refused_growth_leaves_a_ceiling_below_which_sizes_still_move(kind: FailureKind, ceiling: float) -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer(kind)
    assert cluster.resize.ceiling(cluster.now) == ceiling
    cluster.want(3.0)
    cluster.run(5)
    assert Patch(3.0) not in commands(cluster)
    assert cluster.quota == ceiling
    cluster.want(0.5)
    cluster.run(5)
    assert cluster.quota == 0.5
    cluster.want(3.0)
    cluster.run(5)
    assert cluster.quota == ceiling
    cluster.run(60)
    assert cluster.quota == 3.0


def test_a_quota_that_may_have_room_again_is_asked_at_once_and_the_node_has_no_say_in_it() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("quota")
    cluster.tell(NodeChanged())
    assert cluster.resize.ceiling(cluster.now) == 1.5
    cluster.tell(QuotaFreed())
    assert cluster.resize.ceiling(cluster.now) is None
    cluster.run(3)
    assert cluster.quota == 2.0


def test_a_node_with_more_to_give_is_asked_again() -> None:
    cluster = steady()
    cluster.mood = "refuses"
    cluster.want(2.0)
    cluster.run(20)
    assert cluster.resize.ceiling(cluster.now) == 1.0
    cluster.mood = "works"
    cluster.tell(QuotaFreed())
    assert cluster.resize.ceiling(cluster.now) == 1.0
    cluster.tell(NodeChanged())
    cluster.run(3)
    assert cluster.quota == 2.0


def test_when_more_than_the_need_is_refused_the_need_is_asked_for_next() -> None:
    cluster = steady()
    cluster.tell(Target(3.0, need=1.6))
    cluster.answer("quota")
    cluster.run(3)
    assert cluster.quota == 1.6


def test_a_conflict_is_tried_again_after_the_spacing() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("conflict")
    first_s = cluster.now
    commands(cluster)
    cluster.advance(1.0)
    assert cluster.commands == [(first_s + 1.0, Patch(2.0))]


def test_a_busy_server_is_asked_again_after_growing_waits() -> None:
    cluster = steady()
    cluster.want(2.0)
    waits = []
    for _ in range(7):
        cluster.answer("busy")
        failed_s = cluster.now
        cluster.advance(40.0)
        waits.append(cluster.patched_s[-1] - failed_s)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_after_a_lost_answer_to_a_shrink_the_proxy_counts_on_the_smaller_size_until_that_is_known() -> None:
    cluster = steady()
    cluster.want(0.5)
    cluster.answer("busy")  # it was not applied, but nobody knows
    cluster.want(1.0)
    assert (cluster.proxy.cores, cluster.resize.size) == (0.5, 0.5)
    cluster.run(3)
    assert (cluster.proxy.cores, cluster.resize.phase) == (1.0, ResizePhase.STEADY)


def test_a_lost_answer_to_a_growth_counts_on_the_node() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("busy")
    cluster.want(1.0)
    assert cluster.resize.committed == 2.0


def test_a_size_that_was_refused_was_never_accepted() -> None:
    cluster = steady()
    cluster.want(2.0)
    assert (cluster.resize.asked, cluster.resize.accepted) == (2.0, 1.0)
    cluster.answer("refused")
    assert (cluster.resize.asked, cluster.resize.accepted) == (1.0, 1.0)
    cluster.want(0.5)
    cluster.run(3)
    assert cluster.resize.accepted == 0.5


def test_a_pod_that_is_gone_is_left_alone() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("gone")
    commands(cluster)
    cluster.want(3.0)
    cluster.tell(Connected())
    cluster.run(20)
    assert cluster.resize.phase is ResizePhase.GONE
    assert commands(cluster) == []
    assert cluster.wake_s is None


def test_a_failing_kubelet_is_asked_again_after_growing_waits_and_people_are_told_once() -> None:
    cluster = steady()
    cluster.mood = "fails"
    cluster.want(2.0)
    cluster.run(220)
    assert (cluster.resize.phase, cluster.proxy.cores) == (ResizePhase.ERROR, 1.0)
    gaps = [later - earlier for earlier, later in pairwise(cluster.patched_s)]
    assert gaps == pytest.approx([5.0, 10.0, 20.0, 40.0, 60.0, 60.0], abs=0.6)
    assert kinds(cluster) == ["ResizeFailed"]
    cluster.mood = "works"
    cluster.run(3)
    assert cluster.proxy.cores == 2.0


def test_a_resize_that_nothing_confirms_is_reported_once_and_goes_on() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("done")
    cluster.advance(9.9)
    assert kinds(cluster) == []
    cluster.advance(0.2)
    assert kinds(cluster) == ["ResizeStuck"]
    cluster.advance(100.0)
    assert kinds(cluster) == ["ResizeStuck"]
    assert len(cluster.patched_s) == 1
    cluster.run(2)
    assert cluster.proxy.cores == 2.0


def test_a_proxy_that_was_not_reached_is_told_again_after_growing_waits() -> None:
    cluster = steady()
    cluster.proxy_up = False
    cluster.tell(Connected())
    cluster.advance(100.0)
    told_s = [at_s for at_s, command in cluster.commands if command == Tell(Phase.ACTUATED, 1.0)]
    gaps = [later - earlier for earlier, later in pairwise(told_s)]
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0])


def test_a_shrink_does_not_wait_for_a_proxy_that_is_down() -> None:
    cluster = steady()
    cluster.proxy_up = False
    cluster.tell(Connected())
    commands(cluster)
    cluster.want(0.5)
    assert commands(cluster) == [Tell(Phase.PATCHED, 0.5), Patch(0.5)]


def test_something_beside_the_cores_is_patched_until_it_was_accepted() -> None:
    cluster = steady()
    cluster.want_more()
    for failure in ("conflict", "busy", "lost"):
        cluster.answer(failure)
        cluster.advance(2.5)
        assert cluster.in_flight == [1.0]
    cluster.answer("done")
    cluster.run(60)
    assert len(cluster.patched_s) == 4
    assert cluster.resize.ceiling(cluster.now) is None


def test_a_patch_that_changed_nothing_is_no_failure_of_the_kubelet() -> None:
    resize = PodResize(0.0)
    resize.handle(Seen(1.0, 0.5, generation=1, observed=1), 0.0)
    resize.handle(Target(2.0), 1.0)
    resize.handle(PatchFailed(2.0, "busy", "timeout"), 2.0)  # it was not applied, but nobody knows
    resize.handle(Target(1.0), 5.0)
    resize.handle(PatchDone(1.0, 1), 6.0)
    commands = resize.handle(Seen(1.0, 0.5, progress="Error", generation=1, observed=1), 10.0)
    assert WakeAt(15.0) in commands, "the first wait after an error"
