"""Whose the cores of a node are: booked as pods come, move, end and go, whatever the order in which it is told."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.cluster import AGAIN_S, PATIENCE_S, Cluster
from knative_sponge.controller.footprint import kept_of_pod
from knative_sponge.controller.informer import key_of
from knative_sponge.controller.nodeview import kept_of_node
from knative_sponge.controller.podview import requested, view
from knative_sponge.controller.resource import Object
from tests.controller.admission import container
from tests.controller.sized_pod import running


class Feed:
    """Tells what an informer would that keeps so much of each object."""

    def __init__(self, keep: Callable[[Object], Object]) -> None:
        self._keep = keep
        self.objects: dict[Any, Object] = {}
        self._tell: Any = None

    def subscribe(self, subscriber: Any) -> None:
        self._tell = subscriber

    def put(self, item: Object) -> None:
        key = key_of(item)
        before = self.objects.get(key)
        after = self.objects[key] = self._keep(copy.deepcopy(item))
        self._tell(before, after)

    def remove(self, key: Any) -> None:
        self._tell(self.objects.pop(key), None)


class World:
    def __init__(self) -> None:
        self.pods, self.nodes = Feed(kept_of_pod), Feed(kept_of_node)
        self.changed: list[str] = []
        self.now = 1000.0
        self.cluster = Cluster(self.pods, self.nodes, self.changed.append, lambda: self.now)  # type: ignore[arg-type]


def node(name: str = "n1", cpu: str = "4", *, memory: str = "8Gi", labels: Any = None, **spec: Any) -> Object:
    metadata: Object = {"name": name, "resourceVersion": "1", "managedFields": [], "labels": labels or {}}
    status = {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110"}, "conditions": [{"type": "Ready"}]}
    return {"metadata": metadata, "spec": spec, "status": status}


def ours(name: str, cpu: str = "500m", where: str = "n1", **annotations: str) -> Any:
    pod = running(cpu=cpu, **annotations)  # type: ignore[arg-type]
    pod["metadata"]["name"] = name
    pod["spec"]["nodeName"] = where
    for amounts in container(pod, "user-container")["resources"].values():
        amounts["cpu"] = cpu
    return pod


def theirs(name: str, cpu: str = "1", where: str = "n1", phase: str = "Running", message: str = "") -> Any:
    conditions = (
        [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}] if message else []
    )
    return {
        "metadata": {"namespace": "x", "name": name, "resourceVersion": "1"},
        "spec": {"nodeName": where, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": phase, "conditions": conditions},
    }


def waits(name: str, cpu: str = "1", **spec: Any) -> Any:
    pod = theirs(name, cpu, where="", phase="Pending", message="0/3 nodes are available: 3 Insufficient cpu.")
    pod["spec"] |= spec
    return pod


def test_what_is_not_managed_is_reserved_and_so_are_sidecars() -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(ours("a"))
    world.pods.put(theirs("dns", "100m"))
    assert [pod.key[1] for pod in world.cluster.managed_on("n1")] == ["a"]
    assert world.cluster.reserved("n1") == 0.025 + 0.1
    found = world.cluster.node("n1")
    assert found is not None
    assert found.cores == 4.0


def test_pods_that_start_end_or_keep_the_stock_proxy_are_not_ours_to_size() -> None:
    world = World()
    world.nodes.put(node())
    starting, ending, stock = ours("starting"), ours("ending"), ours("stock")
    starting["status"] = {"phase": "Pending"}
    ending["metadata"]["deletionTimestamp"] = "2026-11-22T08:09:44Z"
    del stock["metadata"]["annotations"]["knative-sponge.dev/proxy"]
    for pod in (starting, ending, stock):
        world.pods.put(pod)
    assert world.cluster.managed_on("n1") == ()
    assert abs(world.cluster.reserved("n1") - 3 * 0.525) < 1e-9
    running_now = ours("starting")
    world.pods.put(running_now)
    assert [pod.key[1] for pod in world.cluster.managed_on("n1")] == ["starting"]


def test_a_pod_that_has_ended_takes_nothing() -> None:
    world = World()
    world.pods.put(theirs("job"))
    world.pods.put(theirs("job", phase="Succeeded"))
    assert world.cluster.reserved("n1") == 0.0


def test_whoever_is_told_of_a_pod_hears_before_and_after() -> None:
    world = World()
    told: list[tuple[float | None, float | None]] = []
    world.cluster.subscribe(lambda old, new: told.append((old.request if old else None, new.request if new else None)))
    world.pods.put(ours("a"))
    world.pods.put(ours("a", "700m"))
    world.pods.remove(("default", "a"))
    assert told == [(None, 0.5), (0.5, 0.7), (0.7, None)]


def test_room_is_made_for_a_waiting_pod_where_most_can_be_set_free() -> None:
    world = World()
    world.nodes.put(node("small", "1"))
    world.nodes.put(node("large", "4"))
    world.nodes.put(node("closed", "16", unschedulable=True))
    world.pods.put(ours("a", "3", where="large"))
    assert world.cluster.waiting() == {}
    world.pods.put(waits("new", "2"))
    assert world.cluster.waiting() == {"large": 2.0}
    assert {"small", "large"} <= set(world.changed)
    world.pods.put(theirs("new", "2", where="large", phase="Pending"))
    assert world.cluster.waiting() == {}


def test_no_room_is_made_for_what_never_fits_or_does_not_lack_cpu() -> None:
    world = World()
    world.nodes.put(node("n1", "4"))
    world.pods.put(ours("a", "3"))
    world.pods.put(waits("huge", "9"))
    world.pods.put(theirs("picky", "1", where="", phase="Pending", message="1 node(s) didn't match selector"))
    assert world.cluster.waiting() == {}


def test_a_node_that_is_gone_is_forgotten_with_its_last_pod() -> None:
    world = World()
    world.nodes.put(node())
    world.pods.put(ours("a"))
    world.nodes.remove(("", "n1"))
    assert world.cluster.node("n1") is None
    assert list(world.cluster.nodes) == ["n1"]
    world.pods.remove(("default", "a"))
    assert list(world.cluster.nodes) == []


def test_of_a_node_only_what_is_read_is_held() -> None:
    kept = kept_of_node(node())
    assert set(kept["metadata"]) == {"name", "resourceVersion"}
    assert "status" not in kept
    assert (kept["view"].cores, kept["view"].memory, kept["view"].schedulable) == (4.0, 8 * 2**30, True)


# Pods that wait


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


# Labels that come and go


def test_a_pod_that_loses_or_gets_the_label_of_a_revision_is_booked_all_the_time() -> None:
    world = World()
    world.nodes.put(node())
    pod = ours("a", "500m")
    label = pod["metadata"]["labels"].pop("serving.knative.dev/revision")
    told: list[tuple[bool, bool]] = []
    world.cluster.subscribe(lambda old, new: told.append((old is not None, new is not None)))
    for _ in range(2):
        world.pods.put(pod)
        assert world.cluster.managed_on("n1") == ()
        assert world.cluster.reserved("n1") == pytest.approx(0.525)
        labelled = copy.deepcopy(pod)
        for name in (label, "another-00001"):
            labelled["metadata"]["labels"]["serving.knative.dev/revision"] = name
            world.pods.put(labelled)
            assert [found.revision for found in world.cluster.managed_on("n1")] == [name]
            assert world.cluster.reserved("n1") == pytest.approx(0.025)
    world.pods.put(pod)
    assert told == [(False, True), (True, True), (True, False)] * 2
    world.pods.remove(("default", "a"))
    assert world.cluster.reserved("n1") == 0.0


# What cannot be read


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
    world.cluster.subscribe(lambda old, new: told.append((old is not None, new is not None)))
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


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["ours", "theirs", "ended", "moved", "gone"]), st.integers(1, 9)),
    max_size=30,
)


@given(STEPS)
def test_the_books_are_those_of_the_last_state_whatever_came_before(steps: list[tuple[str, str, int]]) -> None:
    world = World()
    for name in ("n1", "n2"):
        world.nodes.put(node(name))
    last: dict[str, Any] = {}
    for name, what, tenths in steps:
        pod = ours(name, f"{tenths}00m", "n2" if what == "moved" else "n1")
        if what == "gone":
            if last.pop(name, None) is not None:
                world.pods.remove(("default", name))
            continue
        if what == "theirs":
            pod["metadata"]["annotations"].pop("knative-sponge.dev/proxy")
        if what == "ended":
            pod["status"]["phase"] = "Failed"
        last[name] = pod
        world.pods.put(copy.deepcopy(pod))
    for where in ("n1", "n2"):
        here = [
            pod for pod in last.values() if pod["spec"]["nodeName"] == where and pod["status"]["phase"] == "Running"
        ]
        sized = [view(pod) for pod in here if "knative-sponge.dev/proxy" in pod["metadata"]["annotations"]]
        reserved = sum(requested(pod) for pod in here) - sum(pod.request for pod in sized)
        assert {pod.key for pod in world.cluster.managed_on(where)} == {pod.key for pod in sized}
        assert abs(world.cluster.reserved(where) - reserved) < 1e-9
