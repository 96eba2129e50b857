"""Whose the cores of a node are: booked as pods come, move, end and go, whatever the order in which it is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.cluster.node import kept_of_node
from knative_sponge.controller.cluster.pod import PodView, requested
from knative_sponge.controller.kube.informer import Changed
from tests.controller.cluster.capacity_kit import World, node, ours, theirs, waits
from tests.controller.sized_pod import viewed


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
    told: list[Changed[PodView]] = []
    world.cluster.subscribe(told.append)
    world.pods.put(ours("a"))
    world.pods.put(ours("a", "700m"))
    world.pods.remove(("default", "a"))
    assert {changed.key for changed in told} == {("default", "a")}
    sizes = [[pod and pod.request for pod in (changed.before, changed.after)] for changed in told]
    assert sizes == [[None, 0.5], [0.5, 0.7], [0.7, None]]


def test_the_pods_of_a_revision_are_found_wherever_they_run_and_whoever_sizes_them() -> None:
    world = World()
    revision = ours("a")["metadata"]["labels"]["serving.knative.dev/revision"]
    stock, moved = ours("b"), ours("c")
    del stock["metadata"]["annotations"]["knative-sponge.dev/proxy"]
    moved["metadata"]["labels"]["serving.knative.dev/revision"] = "another-00001"
    elsewhere = ours("d")
    elsewhere["metadata"]["namespace"] = "y"
    for pod in (ours("a"), stock, moved, elsewhere, ours("waits", where=""), theirs("dns")):
        world.pods.put(pod)

    def names(revision: str, namespace: str = "default") -> list[str]:
        return [pod.key[1] for pod in world.cluster.pods_of((namespace, revision))]

    assert names(revision) == ["a", "b", "waits"]
    assert (names("another-00001"), names(revision, "y"), names("none")) == (["c"], ["d"], [])
    world.pods.put(ours("c"))
    world.pods.remove(("default", "a"))
    assert (names(revision), names("another-00001")) == (["b", "waits", "c"], [])


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


def test_a_pod_that_loses_or_gets_the_label_of_a_revision_is_booked_all_the_time() -> None:
    world = World()
    world.nodes.put(node())
    pod = ours("a", "500m")
    label = pod["metadata"]["labels"].pop("serving.knative.dev/revision")
    told: list[tuple[bool, bool]] = []
    world.cluster.subscribe(lambda changed: told.append((changed.before is not None, changed.after is not None)))
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
        sized = [viewed(pod) for pod in here if "knative-sponge.dev/proxy" in pod["metadata"]["annotations"]]
        reserved = sum(requested(pod) for pod in here) - sum(pod.request for pod in sized)
        assert {pod.key for pod in world.cluster.managed_on(where)} == {pod.key for pod in sized}
        assert abs(world.cluster.reserved(where) - reserved) < 1e-9
