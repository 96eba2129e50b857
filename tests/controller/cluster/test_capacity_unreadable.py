"""What cannot be read costs its object alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.controller.admission_kit import container
from tests.controller.cluster.capacity_kit import World, node, ours, theirs, waits

BROKEN = "4 cores"


def break_request(pod: Any) -> None:
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = BROKEN


def break_limit(pod: Any) -> None:
    container(pod, "user-container")["resources"]["limits"]["memory"] = BROKEN


def break_status(pod: Any) -> None:
    pod["status"]["containerStatuses"][1]["resources"]["limits"]["cpu"] = None


@pytest.mark.parametrize("breaks", [break_request, break_limit, break_status])
def test_a_managed_pod_that_cannot_be_read_keeps_its_cores_and_is_left_alone(
    breaks: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(ours("a", "500m"))
    world.pods.put(ours("b", "1"))
    told: list[tuple[bool, bool]] = []
    world.cluster.subscribe(lambda changed: told.append((changed.before is not None, changed.after is not None)))
    broken = ours("a", "500m")
    breaks(broken)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            world.pods.put(broken)
    assert [pod.key[1] for pod in world.cluster.managed_on("n1")] == ["b"]
    assert world.cluster.reserved("n1") == pytest.approx(0.525 + 0.025)
    assert world.cluster.node("n1") is not None
    assert told == [(True, False)], "nobody sizes it"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("pod default/a: ")
    world.pods.put(ours("a", "500m"))
    assert [pod.key[1] for pod in world.cluster.managed_on("n1")] == ["a", "b"]
    assert world.cluster.reserved("n1") == pytest.approx(0.05)


def test_of_a_pod_that_grows_the_largest_size_counts_when_it_cannot_be_read_any_more() -> None:
    world = World()
    world.nodes.put(node())
    pod = ours("a", "500m")
    pod["status"]["containerStatuses"][1]["allocatedResources"]["cpu"] = "2"
    world.pods.put(pod)
    break_request(pod)
    world.pods.put(pod)
    assert world.cluster.reserved("n1") == pytest.approx(2.025)


def test_a_pod_of_others_that_cannot_be_read_counts_as_before(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(theirs("dns", "2"))
    with caplog.at_level(logging.WARNING):
        world.pods.put(theirs("dns", "-1"))
    assert world.cluster.reserved("n1") == 2.0
    assert "pod x/dns" in caplog.text
    world.pods.put(theirs("dns", BROKEN, phase="Succeeded"))
    assert world.cluster.reserved("n1") == 0.0


def test_a_node_with_a_pod_of_a_size_that_was_never_known_is_not_divided() -> None:
    world = World()
    world.nodes.put(node())
    world.nodes.put(node("n2"))
    world.pods.put(ours("a"))
    world.pods.put(theirs("dns", BROKEN))
    assert world.cluster.node("n1") is None
    assert world.cluster.free_memory("n1") == 0.0
    world.pods.put(waits("new", "1"))
    assert world.cluster.waiting() == {"n2": 1.0}
    world.pods.put(theirs("dns", BROKEN, where="n2"))
    assert world.cluster.node("n1") is not None
    assert world.cluster.node("n2") is None
    world.changed.clear()
    world.pods.put(theirs("dns", "1", where="n2"))
    assert world.cluster.reserved("n2") == 1.0
    assert world.cluster.node("n2") is not None
    assert world.changed == ["n2"]


@pytest.mark.parametrize("amount", ["cpu", "memory"])
def test_a_node_that_cannot_be_read_is_not_divided(amount: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(ours("a"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            world.nodes.put(node(**{amount: BROKEN}))
    assert world.cluster.node("n1") is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("node n1: ")
    world.nodes.put(node())
    assert world.cluster.node("n1") is not None


def test_a_node_that_does_not_say_yet_what_it_can_give_is_not_divided() -> None:
    world = World()
    item = node()
    del item["status"]
    world.nodes.put(item)
    assert world.cluster.node("n1") is None
