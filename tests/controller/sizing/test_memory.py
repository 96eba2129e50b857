"""Memory of pods follows what kubelets measure, by the same patches as cores, and is never in their way."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from knative_sponge.core.resizing.events import Report
from knative_sponge.errors import KubeError, KubeUnreachable
from tests.controller.sizing.memory_kit import ADDRESS, MI, World
from tests.virtual_time import run_virtual

BOUNDS = {"min_memory": "64Mi", "max_memory": "1Gi"}


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        run_virtual(lambda: test(*args, **named))

    return run


def mi(size: int) -> str:
    return str(size * MI)


def kinds(world: World) -> list[str]:
    return [report.kind for report in world.reports]


@virtual
async def test_memory_grows_with_what_is_in_use_and_people_hear_of_it_when_it_did() -> None:
    world = World()
    world.add("a", **BOUNDS)
    world.used["a"] = 120
    await world.pass_time(5)
    assert world.patches == [
        ("a", {"requests": {"cpu": "100m", "memory": mi(208)}, "limits": {"cpu": "100m", "memory": mi(208)}})
    ]
    await world.pass_time(5)
    assert world.reports == [Report("MemoryResized", "memory 128Mi → 208Mi: 120Mi are in use")]
    await world.pass_time(60)
    assert len(world.patches) == len(world.reports) == 1
    assert set(world.asked) == {ADDRESS}


@virtual
async def test_memory_shrinks_after_ten_minutes_with_little_in_use() -> None:
    world = World()
    world.add("a", limit="1Gi", **BOUNDS)
    world.used["a"] = 100
    await world.pass_time(595)
    assert world.patches == []
    await world.pass_time(20)
    assert world.memory("a") == (mi(176), mi(176))


@pytest.mark.parametrize(
    ("annotations", "used", "after"),
    [
        ({"min_memory": "256Mi"}, 10, mi(256)),
        ({"min_memory": "64Mi"}, 125, mi(224)),
        ({"max_memory": "150Mi"}, 125, mi(150)),
        ({"max_memory": "150Mi"}, 20, "128Mi"),
        ({"min_memory": "16Gi"}, 10, mi(7 * 1024)),
    ],
    ids=str,
)
@virtual
async def test_one_bound_is_enough(annotations: dict[str, str], used: float, after: str) -> None:
    world = World("7Gi")
    world.add("a", **annotations)
    world.used["a"] = used
    await world.pass_time(5)
    assert world.memory("a")[1] == after


@virtual
async def test_memory_without_bounds_and_that_of_containers_that_would_restart_is_left_alone() -> None:
    world = World()
    world.add("a")
    world.add("b", policy="RestartContainer", **BOUNDS)
    world.used |= {"a": 127, "b": 127}
    await world.pass_time(20)
    assert (world.patches, world.asked) == ([], [])


@virtual
async def test_without_a_limit_only_the_request_moves() -> None:
    world = World()
    world.add("a", limit=None, **BOUNDS)
    world.used["a"] = 100
    await world.pass_time(5)
    assert world.memory("a") == (mi(176), None)


@virtual
async def test_a_kubelet_that_fails_is_warned_of_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.add("a", **BOUNDS)
    world.used["a"] = 127
    world.broken = True
    await world.pass_time(30)
    assert world.patches == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "node n1 is left alone until its kubelet answers: it is out of order" in caplog.text
    world.broken = False
    await world.pass_time(5)
    assert world.memory("a")[1] == mi(224)
    world.broken = True
    await world.pass_time(30)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@virtual
async def test_a_node_without_an_address_is_not_asked() -> None:
    world = World()
    world.put_node(address="")
    world.add("a", **BOUNDS)
    await world.pass_time(10)
    assert world.asked == []


@virtual
async def test_a_container_that_was_not_measured_is_left_alone() -> None:
    world = World()
    world.add("a", **{**BOUNDS, "min_memory": "512Mi"})
    await world.pass_time(10)
    assert world.patches == []


@virtual
async def test_pods_share_what_no_pod_of_the_node_has_requested() -> None:
    world = World("1024Mi")
    world.add_other("database", "688Mi")  # 80 MiB are left beside two pods
    for name in "ab":
        world.add(name, **BOUNDS)
        world.used[name] = 120
    await world.pass_time(30)
    assert sorted(world.memory(name)[1] or "" for name in "ab") == sorted(["128Mi", mi(208)])
    world.put_node("1040Mi")
    await world.pass_time(5)
    assert sorted(world.memory(name)[1] or "" for name in "ab") == sorted([mi(144), mi(208)])


@virtual
async def test_what_a_pod_has_requested_is_given_away_once_it_ends() -> None:
    world = World("1024Mi")
    world.add_other("database", "896Mi")
    world.add("a", **BOUNDS)
    world.used["a"] = 120
    await world.pass_time(10)
    assert world.patches == []
    world.add_other("database", "896Mi", phase="Succeeded")
    await world.pass_time(5)
    assert world.memory("a")[1] == mi(208)


@virtual
async def test_memory_and_cores_that_are_due_together_go_in_one_patch() -> None:
    world = World()
    world.add("a", **BOUNDS)
    world.used["a"] = 120
    await world.sizer.look()
    world.resizer("a").set_target(0.5, 0.5, 2.0, "a test", 0.0)
    await asyncio.sleep(5)
    assert world.patches == [
        ("a", {"requests": {"cpu": "500m", "memory": mi(208)}, "limits": {"cpu": "500m", "memory": mi(208)}})
    ]


@virtual
async def test_patches_of_memory_and_cores_keep_their_distance() -> None:
    world = World()
    world.add("a", **BOUNDS)
    await asyncio.sleep(2)
    world.resizer("a").set_target(0.5, 0.5, 2.0, "a test", 0.0)
    world.used["a"] = 120
    await world.sizer.look()
    await asyncio.sleep(0.5)
    assert len(world.patches) == 1
    await asyncio.sleep(1)
    assert [sorted(resources["limits"]) for _, resources in world.patches] == [["cpu"], ["cpu", "memory"]]


@pytest.mark.parametrize("status", [403, 422])
@virtual
async def test_memory_that_is_refused_does_not_hold_up_cores(status: int) -> None:
    world = World()
    world.add("a", **BOUNDS)
    world.used["a"] = 120
    world.refusals = [KubeError("no", status=status)]
    await world.sizer.look()
    world.resizer("a").set_target(0.5, 0.5, 2.0, "a test", 0.0)
    await asyncio.sleep(3)
    assert [resources["limits"] for _, resources in world.patches[1:]] == [{"cpu": "500m"}]
    await world.pass_time(55)
    assert len(world.patches) == 2
    assert set(world.reports) == {
        Report("ResizeFailed", "memory 128Mi → 208Mi was refused"),
        Report("Resized", "CPU 100m → 500m: a test"),
    }
    await world.pass_time(10)
    assert world.memory("a")[1] == mi(208)


@virtual
async def test_a_shrink_that_the_api_server_refuses_is_not_asked_for_again() -> None:
    world = World()
    world.add("a", limit="1Gi", **BOUNDS)
    world.used["a"] = 100
    world.refusals = [KubeError("memory limits cannot be decreased", status=422)]
    await world.pass_time(4000)
    assert len(world.patches) == 1
    assert kinds(world) == ["ResizeFailed"]


@pytest.mark.parametrize("error", [KubeUnreachable("timeout"), KubeError("later", status=503)], ids=["lost", "busy"])
@virtual
async def test_a_patch_whose_answer_is_lost_is_tried_again_with_its_memory(error: KubeError) -> None:
    world = World()
    world.add("a", **BOUNDS)
    world.used["a"] = 120
    world.refusals = [error]
    await world.pass_time(10)
    assert [resources["limits"]["memory"] for _, resources in world.patches] == [mi(208), mi(208)]
    assert world.memory("a")[1] == mi(208)


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible"])
@virtual
async def test_a_growth_that_waits_is_taken_back_so_that_cores_do_not(reason: str) -> None:
    world = World()
    world.add("a", **BOUNDS)
    world.used["a"] = 120
    world.applies = False
    await world.sizer.look()
    await asyncio.sleep(2)
    assert world.memory("a")[1] == mi(208)
    world.condition("a", "PodResizePending", reason)
    world.applies = True
    await world.pass_time(55)
    assert [resources["limits"]["memory"] for _, resources in world.patches] == [mi(208), mi(128)]
    assert world.memory("a") == (mi(128), mi(128))
    assert "MemoryResized" not in kinds(world)
    await world.pass_time(10)
    assert world.memory("a")[1] == mi(208)


@virtual
async def test_a_shrink_that_the_kubelet_cannot_do_is_taken_back_for_good() -> None:
    world = World()
    world.add("a", limit="1Gi", **BOUNDS)
    world.used["a"] = 100
    await world.pass_time(600)
    world.applies = False
    await world.pass_time(5)
    world.condition("a", "PodResizeInProgress", "Error")
    world.applies = True
    await world.pass_time(4000)
    assert [resources["limits"]["memory"] for _, resources in world.patches] == [mi(176), mi(1024)]
    assert world.memory("a") == (mi(1024), mi(1024))


@virtual
async def test_a_growth_waits_until_the_one_before_is_in_force() -> None:
    world = World()
    world.add("a", **BOUNDS)
    world.used["a"] = 120
    world.applies = False
    await world.pass_time(5)
    world.used["a"] = 205
    await world.pass_time(20)
    assert len(world.patches) == 1
    world.applies = True
    world._apply("a")
    await world.pass_time(5)
    assert world.memory("a")[1] == mi(352)


@virtual
async def test_a_pod_that_ends_is_forgotten_and_one_of_its_name_begins_anew() -> None:
    world = World()
    world.add("a", limit="1Gi", **BOUNDS)
    world.used["a"] = 100
    await world.pass_time(500)
    world.remove("a")
    await world.pass_time(5)
    world.add("a", limit="1Gi", **BOUNDS)
    await world.pass_time(500)
    assert world.patches == []
    world.remove("a")
    world.asked.clear()
    await world.pass_time(5)
    assert world.asked == []
