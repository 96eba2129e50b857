"""How one pod is resized, case by case; `test_machine_histories` looks for what no case thought of."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from knative_sponge.core.resizing.events import Extra, Patch, Report, Seen, Target, Tell, WakeAt
from knative_sponge.core.resizing.facts import ResizePhase
from knative_sponge.core.resizing.machine import PodResize, ResizeRules
from knative_sponge.core.resizing.phase import Phase
from tests.core.resizing.simulated_cluster import commands, steady


def test_a_growth_is_patched_then_announced_then_told_when_status_shows_it() -> None:
    cluster = steady()
    cluster.want(2.0)
    assert commands(cluster) == [Patch(2.0)]
    assert (cluster.resize.phase, cluster.resize.committed) == (ResizePhase.PATCHING, 2.0)
    cluster.answer("done")
    assert commands(cluster) == [Tell(Phase.PATCHED, 2.0)]
    assert (cluster.resize.phase, cluster.resize.size, cluster.resize.committed) == (ResizePhase.PATCHED, 1.0, 2.0)
    cluster.sync()
    cluster.deliver()  # of the new spec, with the old status
    cluster.deliver()  # of the status in which it is begun
    assert cluster.quota == 2.0
    assert cluster.resize.phase is ResizePhase.IN_PROGRESS
    assert commands(cluster) == []
    cluster.sync()
    cluster.deliver()
    assert commands(cluster) == [Report("Resized", "CPU 1 → 2"), Tell(Phase.ACTUATED, 2.0)]
    assert (cluster.resize.phase, cluster.resize.size) == (ResizePhase.STEADY, 2.0)


def test_a_shrink_is_announced_before_it_is_patched_and_told_when_status_shows_it() -> None:
    cluster = steady()
    cluster.want(0.5)
    assert commands(cluster) == [Tell(Phase.PATCHED, 0.5), Patch(0.5)]
    assert (cluster.resize.size, cluster.resize.committed) == (0.5, 1.0)
    cluster.answer("done")
    assert commands(cluster) == []
    cluster.run(1)
    assert commands(cluster) == [Report("Resized", "CPU 1 → 500m"), Tell(Phase.ACTUATED, 0.5)]


def test_the_latest_target_wins_and_patches_keep_their_distance() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.want(3.0)
    cluster.answer("done")
    cluster.want(1.5)
    cluster.want(2.5)
    answered_s = cluster.now
    commands(cluster)
    cluster.advance(2.0)
    assert cluster.commands == [(answered_s + 1.0, Patch(2.5))]


def test_a_target_that_went_back_in_time_needs_no_patch() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("done")
    cluster.want(3.0)
    cluster.want(2.0)
    commands(cluster)
    cluster.run(5)
    assert not [command for command in commands(cluster) if isinstance(command, Patch)]


def test_the_same_target_again_says_nothing() -> None:
    cluster = steady()
    cluster.want(1.0)
    cluster.show()
    cluster.run(100)
    assert commands(cluster) == []


def test_a_size_that_the_kernel_rounds_is_in_force_and_told_as_it_was_asked_for() -> None:
    cluster = steady(granularity=0.01)
    cluster.want(1.333)
    cluster.run(3)
    assert cluster.quota == pytest.approx(1.34)
    assert cluster.proxy.cores == 1.333
    assert cluster.resize.phase is ResizePhase.STEADY


def test_a_controller_that_starts_during_a_growth_tells_the_old_size_then_what_comes() -> None:
    resize = PodResize(0.0)
    told = resize.handle(Seen(2.0, 1.0, progress="InProgress", generation=2, observed=2), 0.0)
    assert [command for command in told if isinstance(command, Tell)] == [
        Tell(Phase.ACTUATED, 1.0),
        Tell(Phase.PATCHED, 2.0),
    ]
    assert resize.phase is ResizePhase.IN_PROGRESS


def test_a_controller_that_starts_during_a_shrink_tells_the_smaller_size() -> None:
    resize = PodResize(0.0)
    told = resize.handle(Seen(0.5, 1.0, generation=2, observed=2), 0.0)
    assert [command for command in told if isinstance(command, Tell)] == [Tell(Phase.PATCHED, 0.5)]


def test_a_controller_that_starts_behind_a_shrink_and_a_deferred_growth_tells_what_the_kubelet_admitted() -> None:
    resize = PodResize(0.0)
    told = resize.handle(Seen(3.0, 2.0, "Deferred", "InProgress", generation=4, observed=4, allocated=1.0), 0.0)
    assert [command for command in told if isinstance(command, Tell)] == [Tell(Phase.PATCHED, 1.0)]


def test_a_status_that_is_older_than_spec_is_no_news_for_a_proxy() -> None:
    resize = PodResize(0.0)
    assert resize.handle(Seen(1.0, 1.0, generation=3, observed=2), 0.0) == [WakeAt(10.0)]
    assert resize.size is None
    told = resize.handle(Seen(1.0, 1.0, generation=3, observed=3), 0.1)
    assert told == [Tell(Phase.ACTUATED, 1.0), WakeAt(None)]


def test_a_status_from_before_a_shrink_confirms_no_growth_that_came_after_it() -> None:
    cluster = steady()
    cluster.want(0.5)
    cluster.answer("done")
    cluster.sync()  # its status still shows one core; the quota is half a core from now on
    cluster.advance(1.0)
    cluster.want(1.0)
    cluster.answer("done")
    while cluster.watch:
        cluster.deliver()
    assert (cluster.spec, cluster.shown, cluster.quota) == (1.0, 1.0, 0.5)
    assert (cluster.proxy.cores, cluster.resize.size) == (0.5, 0.5)
    cluster.run(2)
    assert (cluster.proxy.cores, cluster.quota) == (1.0, 1.0)


def test_a_watch_that_is_behind_the_answer_to_a_patch_is_no_reason_for_another() -> None:
    cluster = steady()
    cluster.want(2.0)
    old = cluster.object()
    cluster.answer("done")
    cluster.tell(old)
    cluster.advance(5.0)
    assert cluster.patched_s == [2.0]
    assert cluster.resize.committed == 2.0


def test_without_generations_in_the_status_what_is_shown_counts() -> None:
    resize = PodResize(0.0)
    assert resize.handle(Seen(1.0, 1.0), 0.0) == [Tell(Phase.ACTUATED, 1.0)]
    assert resize.phase is ResizePhase.STEADY


def test_nothing_is_patched_before_the_pod_shows_its_size() -> None:
    resize = PodResize(0.0)
    assert resize.handle(Target(2.0), 5.0) == []
    assert resize.handle(Seen(1.0, None, generation=1, observed=1), 6.0) == []
    assert Patch(2.0) in resize.handle(Seen(1.0, 1.0, generation=1, observed=1), 7.0)


def test_a_container_that_restarts_keeps_its_size_and_is_patched_when_it_is_back() -> None:
    cluster = steady()
    gone = replace(cluster.object(), in_force=None)
    cluster.tell(gone)
    cluster.want(2.0)
    cluster.advance(20)
    assert commands(cluster) == []
    assert cluster.resize.size == 1.0
    cluster.show()
    assert commands(cluster) == [Patch(2.0)]


def test_a_proxy_that_restarted_is_told_the_truth() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.run(3)
    cluster.restart_proxy()
    assert cluster.proxy.cores == 2.0


def test_a_size_that_somebody_else_set_is_set_back() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.run(3)
    cluster.apply(3.0)
    cluster.run(5)
    assert cluster.quota == 2.0


def test_a_new_tick_is_asked_for_only_when_its_time_changed() -> None:
    resize = PodResize(0.0)
    resize.handle(Seen(1.0, 1.0), 0.0)
    assert resize.handle(Target(2.0), 0.2) == [WakeAt(1.0)]
    assert resize.handle(Target(3.0), 0.3) == []


@pytest.mark.parametrize("cores", [0.0, -1.0, math.inf, math.nan])
def test_a_target_that_is_no_size_is_refused(cores: float) -> None:
    with pytest.raises(ValueError, match="cores"):
        Target(cores)


@pytest.mark.parametrize("wrong", [{"min_spacing_s": 0.0}, {"busy_s": (2.0, 1.0)}, {"error_s": (0.0, 1.0)}])
def test_rules_that_cannot_be_kept_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PodResize(0.0, ResizeRules(**wrong))


def test_something_beside_the_cores_is_patched_once_though_the_cores_are_right() -> None:
    cluster = steady()
    cluster.want_more()
    assert commands(cluster) == [Patch(1.0)]
    cluster.answer("done")
    cluster.run(10)
    assert (commands(cluster), cluster.reports) == ([], [])
    assert cluster.resize.phase is ResizePhase.STEADY


def test_something_beside_the_cores_goes_with_the_next_patch_and_keeps_its_distance() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("done")
    answered_s = cluster.now
    commands(cluster)
    cluster.want_more()
    cluster.advance(2.0)
    assert cluster.commands == [(answered_s + 1.0, Patch(2.0))]


def test_something_beside_the_cores_that_is_no_more_due_is_not_patched() -> None:
    cluster = steady()
    cluster.want(2.0)
    cluster.answer("done")
    cluster.want_more()
    cluster.tell(Extra(due=False))
    commands(cluster)
    cluster.run(5)
    assert not [command for command in commands(cluster) if isinstance(command, Patch)]


def test_what_hinders_something_beside_the_cores_is_reported_without_them() -> None:
    cluster = steady()
    cluster.tell(replace(cluster.object(), pending="Deferred", message="not enough memory"))
    assert cluster.reports == [Report("ResizeDeferred", "not enough memory")]
