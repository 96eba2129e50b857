"""For which waiting pods room is made, where, and for how long."""

from __future__ import annotations

import time
from typing import Any

import pytest

from knative_sponge.controller.cluster.capacity import AGAIN_S, PATIENCE_S
from tests.controller.admission_kit import container
from tests.controller.cluster.capacity_kit import World, node, ours, theirs, waits


def test_a_pod_is_waited_for_a_minute_from_when_it_was_first_seen_to_wait() -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(waits("picky", "2"))
    assert world.cluster.waiting() == {"n1": 2.0}
    world.now += PATIENCE_S - 1.0
    world.pods.put(waits("picky", "1"))
    assert world.cluster.waiting() == {"n1": 1.0}
    # What the scheduler says last is not all that keeps it off.
    world.pods.put(theirs("picky", where="", phase="Pending", message="3 Insufficient memory"))
    assert world.cluster.waiting() == {}
    world.pods.put(waits("picky", "2"))
    assert world.cluster.waiting() == {"n1": 2.0}
    world.now += 2.0
    assert world.cluster.waiting() == {}
    world.pods.put(waits("next", "1"))
    assert world.cluster.waiting() == {"n1": 1.0}


def test_another_pod_of_the_same_name_is_waited_for_anew() -> None:
    world = World()
    world.nodes.put(node())
    for lands in (False, True):
        world.pods.put(waits("p", "1"))
        world.now += 2 * PATIENCE_S
        assert world.cluster.waiting() == {}
        if lands:
            world.pods.put(theirs("p"))
        else:
            world.pods.remove(("x", "p"))
        world.pods.put(waits("p", "1"))
        assert world.cluster.waiting() == {"n1": 1.0}
        world.pods.remove(("x", "p"))


def of_set(pod: Any, controller: str = "replica-set") -> Any:
    others = {"kind": "Bystander", "uid": f"bystander-of-{pod['metadata']['name']}"}
    pod["metadata"]["ownerReferences"] = [others, {"kind": "ReplicaSet", "uid": controller, "controller": True}]
    return pod


def test_a_pod_that_cannot_come_and_is_made_anew_for_ever_is_waited_for_a_minute_in_ten() -> None:
    world = World()
    world.nodes.put(node())
    kept_s = 0
    for number in range(36):  # half an hour
        world.pods.put(of_set(waits(f"job-{number}", "2")))
        for _ in range(50):
            kept_s += bool(world.cluster.waiting())
            world.now += 1.0
        world.pods.remove(("x", f"job-{number}"))
    assert kept_s == 3 * PATIENCE_S
    assert AGAIN_S == 10 * PATIENCE_S


def test_pods_of_one_controller_are_waited_for_together_and_others_of_their_own() -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(of_set(waits("a", "1")))
    world.now += PATIENCE_S - 1.0
    world.pods.put(of_set(waits("b", "1")))
    assert world.cluster.waiting() == {"n1": 2.0}
    world.now += 2.0
    assert world.cluster.waiting() == {}
    world.pods.put(of_set(waits("c", "1")))
    assert world.cluster.waiting() == {}
    world.pods.put(of_set(waits("d", "1"), "another"))
    assert world.cluster.waiting() == {"n1": 1.0}


def test_once_a_pod_of_a_controller_lands_the_next_one_is_waited_for_anew() -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(of_set(waits("a", "1")))
    world.pods.put(of_set(waits("b", "1")))
    world.now += 2 * PATIENCE_S
    world.pods.put(of_set(theirs("a")))
    assert world.cluster.waiting() == {}, "b has had its time"
    world.pods.put(of_set(waits("c", "2")))
    assert world.cluster.waiting() == {"n1": 2.0}
    world.now += 2 * PATIENCE_S
    world.pods.put(of_set(theirs("a", "2")))
    world.pods.put(of_set(theirs("a", phase="Failed")))
    world.pods.put(of_set(waits("d", "1")))
    assert world.cluster.waiting() == {}, "a had landed long before"


GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        pytest.param({}, "small", id="no taint is tolerated"),
        pytest.param({"nodeSelector": {"zone": "b"}}, None, id="no node has the label"),
        pytest.param({"nodeSelector": {"zone": "a"}}, "small", id="one has the label"),
        pytest.param({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, "large", id="exists"),
        pytest.param({"tolerations": [{"operator": "Exists"}]}, "large", id="all taints"),
        pytest.param({"tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}, "large", id="equal"),
        pytest.param({"tolerations": [{"key": "gpu", "value": "no"}]}, "small", id="another value"),
        pytest.param({"tolerations": [{"key": "gpu", "value": "yes", "effect": "NoExecute"}]}, "small", id="effect"),
    ],
)
def test_room_is_made_only_on_nodes_that_the_pod_may_come_to(spec: Any, where: str | None) -> None:
    world = World()
    soft = {"key": "busy", "effect": "PreferNoSchedule"}
    world.nodes.put(node("large", "8", taints=[GPU, soft], labels={"zone": "c"}))
    world.nodes.put(node("small", "2", labels={"zone": "a"}, taints=[soft]))
    world.pods.put(waits("p", "1", **spec))
    assert world.cluster.waiting() == ({} if where is None else {where: 1.0})


def test_a_pod_of_a_revision_that_waits_is_waited_for_as_well() -> None:
    world = World()
    world.nodes.put(node())
    new = ours("new", "1", where="")
    new["status"] = waits("x")["status"]
    world.pods.put(new)
    assert world.cluster.waiting() == {"n1": pytest.approx(1.025)}


def test_a_pod_keeps_what_it_has_of_its_admitted_size_although_others_wait() -> None:
    world = World()
    world.nodes.put(node(cpu="4"))
    pod = ours("a", "2")
    container(pod, "queue-proxy")["env"].append({"name": "SPONGE_CORES", "value": "2"})
    world.owners.admitted = 0.1
    world.pods.put(pod)
    world.pods.put(waits("next", "3"))
    assert world.cluster.waiting() == {"n1": 3.0}, "it was admitted with 100m, whatever it says"
    world.owners.admitted = 2.0
    world.pods.put(pod | {"metadata": pod["metadata"] | {"resourceVersion": "78"}})
    assert world.cluster.waiting() == {}


def test_no_namespace_crowds_out_anothers_waiting_pods_and_each_look_is_bounded() -> None:
    """Before each division all of them were compared with all nodes: 90 ms."""
    world = World()
    for number in range(100):
        world.nodes.put(node(f"n{number}", cpu="80"))
    world.nodes.put(node("large", cpu="96"))
    for number in range(2000):
        world.pods.put(waits(f"many-{number}", "64", nodeSelector={"none": "such"}))
    few = waits("few", "4")
    few["metadata"]["namespace"] = "quiet"
    world.pods.put(few)
    begun = time.process_time()
    assert world.cluster.waiting() == {"large": 4.0}
    assert time.process_time() - begun < 0.03
