"""A node read from its object, and which pods may come to it."""

from __future__ import annotations

from typing import Any

import pytest

from knative_sponge.controller.cluster.node import NodeView, SchedulingConstraints, kept_of_node, node_view, start_room


def node(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n1", "resourceVersion": "7", "labels": {"zone": "a"}},
        "spec": {},
        "status": {"allocatable": {"cpu": "3500m", "memory": "2Gi"}, "addresses": []},
        **changes,
    }


def test_what_a_node_gives_out_is_read() -> None:
    assert node_view(node()) == NodeView("n1", 3.5, 2.0 * 2**30, labels={"zone": "a"})
    assert node_view(node(status={"allocatable": {"cpu": "4"}})) == NodeView("n1", 4.0, 0.0, labels={"zone": "a"})


@pytest.mark.parametrize("status", [{}, {"allocatable": {}}, {"allocatable": {"memory": "2Gi"}}, {"allocatable": None}])
def test_a_node_that_does_not_say_what_it_gives_out_is_none_yet(status: dict[str, Any]) -> None:
    assert node_view(node(status=status)) is None
    assert kept_of_node(node(status=status))["view"] is None


def test_a_node_without_spec_labels_and_status_is_read() -> None:
    assert node_view({"metadata": {"name": "n1"}}) is None
    bare = {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": 2}}}
    assert node_view(bare) == NodeView("n1", 2.0, 0.0)


def test_its_kubelet_is_at_its_internal_address() -> None:
    addresses = [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}]
    view = node_view(node(status={"allocatable": {"cpu": "1"}, "addresses": addresses}))
    assert view is not None
    assert view.address == "10.0.0.1"


@pytest.mark.parametrize(("spec", "schedulable"), [({}, True), ({"unschedulable": True}, False), (None, True)])
def test_a_cordoned_node_takes_no_new_pods(spec: dict[str, Any] | None, schedulable: bool) -> None:
    view = node_view(node(spec=spec))
    assert view is not None
    assert view.schedulable == schedulable
    assert SchedulingConstraints({}, ()).met_by(view) == schedulable


def test_only_taints_that_keep_pods_off_are_kept() -> None:
    taints = [
        {"key": "a", "value": "1", "effect": "NoSchedule"},
        {"key": "b", "effect": "NoExecute"},
        {"key": "c", "effect": "PreferNoSchedule"},
    ]
    view = node_view(node(spec={"taints": taints}))
    assert view is not None
    assert view.taints == (("a", "1", "NoSchedule"), ("b", "", "NoExecute"))


def test_a_quantity_that_is_none_is_told_and_not_raised() -> None:
    bad = node(status={"allocatable": {"cpu": "many"}})
    kept = kept_of_node(bad)
    assert kept["metadata"] == {"name": "n1", "resourceVersion": "7"}
    assert kept["view"] is None
    assert "many" in kept["fault"]
    assert kept_of_node(node())["fault"] == ""


@pytest.mark.parametrize(
    ("selector", "meets"),
    [
        ({}, True),
        ({"zone": "a"}, True),
        ({"zone": "b"}, False),
        ({"zone": "a", "disk": "ssd"}, False),
        ({"disk": "ssd"}, False),
    ],
)
def test_a_pod_comes_to_nodes_with_all_labels_that_it_selects(selector: dict[str, str], meets: bool) -> None:
    pod = {"spec": {"nodeSelector": selector}}
    assert SchedulingConstraints.of(pod).met_by(NodeView("n1", 1.0, 0.0, labels={"zone": "a"})) == meets


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        ({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "yes"}, True),
        ({"key": "gpu", "value": "yes", "effect": ""}, True),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu"}, False),
        ({"key": "cpu", "value": "yes"}, False),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "cpu", "operator": "Exists"}, False),
        ({"key": "", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_a_taint_keeps_off_pods_that_do_not_tolerate_it(toleration: dict[str, str], tolerates: bool) -> None:
    tainted = NodeView("n1", 1.0, 0.0, taints=(("gpu", "yes", "NoSchedule"),))
    pod = {"spec": {"tolerations": [{"key": "other", "operator": "Exists"}, toleration]}}
    assert SchedulingConstraints.of(pod).met_by(tainted) == tolerates
    assert not SchedulingConstraints.of({}).met_by(tainted)


def test_each_taint_must_be_tolerated() -> None:
    tainted = NodeView("n1", 1.0, 0.0, taints=(("a", "", "NoSchedule"), ("b", "", "NoSchedule")))
    one = {"key": "a", "operator": "Exists"}
    assert not SchedulingConstraints({}, (one,)).met_by(tainted)
    assert SchedulingConstraints({}, (one, {"key": "b"})).met_by(tainted)


def test_a_pod_starts_with_at_most_half_of_the_largest_node_that_it_may_come_to() -> None:
    nodes = [NodeView("n1", 2.0, 0.0), NodeView("n2", 6.0, 0.0), NodeView("n3", 9.0, 0.0, schedulable=False)]
    assert start_room({"spec": {}}, nodes) == 3.0
    assert start_room({"spec": {"nodeSelector": {"zone": "b"}}}, nodes) is None
