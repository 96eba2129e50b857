"""What a resize does when the kubelet defers it or calls it infeasible."""

from __future__ import annotations

from dataclasses import replace

from knative_sponge.core.resizing.events import (
    Patch,
)
from knative_sponge.core.resizing.facts import ResizePhase
from tests.core.resizing.simulated_cluster import kinds, steady


def test_a_deferred_growth_waits_and_its_announcement_is_taken_back() -> None:
    cluster = steady()
    cluster.mood = "defers"
    cluster.want(2.0)
    cluster.run(3)
    assert (cluster.resize.phase, cluster.resize.size) == (ResizePhase.DEFERRED, 1.0)
    assert (cluster.proxy.cores, cluster.proxy.coming, cluster.proxy.sure) == (1.0, None, False), (
        "the kubelet tries again"
    )
    assert kinds(cluster) == ["ResizeDeferred"]
    cluster.run(60)
    assert len(cluster.patched_s) == 1
    assert kinds(cluster) == ["ResizeDeferred"]
    cluster.mood = "works"
    cluster.run(2)
    assert cluster.proxy.cores == 2.0


def test_a_deferred_growth_may_be_given_another_target() -> None:
    cluster = steady()
    cluster.mood = "defers"
    cluster.want(2.0)
    cluster.run(3)
    cluster.want(0.5)
    cluster.run(3)
    assert (cluster.quota, cluster.proxy.cores, cluster.resize.phase) == (0.5, 0.5, ResizePhase.STEADY)


def test_a_shrink_that_a_deferred_growth_overtook_is_taken_back() -> None:
    cluster = steady()
    cluster.want(0.5)
    cluster.answer("done")
    cluster.advance(1.0)
    cluster.mood = "defers"
    cluster.want(2.0)
    cluster.run(3)
    assert (cluster.resize.phase, cluster.quota, cluster.proxy.cores) == (ResizePhase.DEFERRED, 1.0, 1.0)


def test_a_shrink_that_is_still_under_way_beside_a_deferred_growth_is_not_taken_back() -> None:
    cluster = steady()
    cluster.mood = "fails"
    cluster.want(0.5)
    cluster.run(2)
    cluster.want(2.0)
    cluster.advance(4.0)
    cluster.answer("done")
    cluster.mood = "defers"
    cluster.sync()  # its status still shows one core
    while cluster.watch:
        cluster.deliver()
    assert (cluster.resize.phase, cluster.shown, cluster.quota) == (ResizePhase.DEFERRED, 1.0, 0.5)
    assert cluster.proxy.cores == 0.5


def test_a_lost_answer_to_a_shrink_is_no_less_in_doubt_while_a_growth_is_deferred() -> None:
    cluster = steady()
    cluster.mood = "defers"
    cluster.want(2.0)
    cluster.run(3)
    cluster.want(0.5)
    cluster.answer("busy")
    cluster.show()
    assert (cluster.resize.phase, cluster.proxy.cores) == (ResizePhase.DEFERRED, 0.5)


def test_an_infeasible_size_is_halved_until_it_is_patched_back_and_all_of_it_not_asked_for_again_for_a_minute() -> None:
    cluster = steady()
    cluster.mood = "refuses"
    cluster.want(5.0)
    cluster.run(20)
    assert set(kinds(cluster)) == {"ResizeInfeasible"}
    asked = [command.cores for _, command in cluster.commands if isinstance(command, Patch)]
    assert asked[:3] == [5.0, 3.0, 2.0]
    assert asked[-1] == 1.0
    assert (cluster.spec, cluster.resize.phase, cluster.resize.ceiling(cluster.now)) == (1.0, ResizePhase.STEADY, 1.0)
    cluster.mood = "works"
    cluster.run(40)
    assert cluster.spec == 1.0
    cluster.run(30)
    assert cluster.quota == 5.0


def test_a_shrink_that_is_infeasible_is_taken_back_too() -> None:
    cluster = steady()
    cluster.mood = "refuses"
    cluster.want(0.5)
    cluster.run(4)
    assert (cluster.spec, cluster.resize.phase, cluster.resize.floor(cluster.now)) == (1.0, ResizePhase.STEADY, 1.0)
    assert cluster.proxy.cores == 1.0
    assert len(cluster.patched_s) == 2


def test_an_infeasible_resize_of_something_else_bounds_no_cpu() -> None:
    cluster = steady()
    cluster.tell(replace(cluster.object(), pending="Infeasible"))
    assert cluster.resize.ceiling(cluster.now) is cluster.resize.floor(cluster.now) is None
