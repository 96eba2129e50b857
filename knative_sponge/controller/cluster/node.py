"""A node as a value: what is allocatable on it, and which pods may be scheduled to it. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from knative_sponge.controller.kube.resource import Object
from knative_sponge.core.quantity import parse_quantity

START_SHARE: Final = 0.5
"""Share of a node's cores that a pod asks for at its start at most: other pods are there, too, and it grows once it runs."""
_KEEPS_OFF: Final = ("NoSchedule", "NoExecute")

Taint = tuple[str, str, str]
"""Key, value, effect."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as sizing needs it. cores, memory (bytes): allocatable. schedulable: False once it is cordoned.

    address: of its kubelet, empty where it has none. taints: those that keep pods off.
    """

    name: str
    cores: float
    memory: float
    schedulable: bool = True
    address: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class SchedulingConstraints:
    """What a pod asks of a node beyond cores and memory: its node selector and its tolerations.

    Affinity, ports and volumes are left out, so a node that meets these constraints may still not take the pod.
    """

    selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> SchedulingConstraints:
        """From the pod's object."""
        spec = pod.get("spec") or {}
        return cls(spec.get("nodeSelector") or {}, tuple(spec.get("tolerations") or ()))

    def met_by(self, node: NodeView) -> bool:
        """May the pod be scheduled to this node?"""
        return (
            node.schedulable
            and all(node.labels.get(key) == value for key, value in self.selector.items())
            and all(any(_tolerates(each, taint) for each in self.tolerations) for taint in node.taints)
        )


def start_room(pod: Mapping[str, Any], nodes: Iterable[NodeView]) -> float | None:
    """Cores that a new pod may ask for at its start: START_SHARE of the largest node that it may be scheduled to; None
    without such a node."""
    constraints = SchedulingConstraints.of(pod)
    return max((START_SHARE * node.cores for node in nodes if constraints.met_by(node)), default=None)


def node_view(node: Object) -> NodeView | None:
    """From the node's object; None while its status has no allocatable CPU. Raises ValueError for an unreadable quantity."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    allocatable = status.get("allocatable") or {}
    if "cpu" not in allocatable:
        return None
    addresses = (one["address"] for one in status.get("addresses") or () if one["type"] == "InternalIP")
    taints = ((one["key"], one.get("value") or "", one["effect"]) for one in spec.get("taints") or ())
    return NodeView(
        name=metadata["name"],
        cores=parse_quantity(str(allocatable["cpu"])),
        memory=parse_quantity(str(allocatable.get("memory", "0"))),
        schedulable=not spec.get("unschedulable", False),
        address=next(addresses, ""),
        # Most labels are the same on all of maybe thousands of nodes: each text is held once.
        labels={sys.intern(key): sys.intern(value) for key, value in (metadata.get("labels") or {}).items()},
        taints=tuple(taint for taint in taints if taint[2] in _KEEPS_OFF),
    )


def kept_of_node(item: Object) -> Object:
    """The node's name, and as `view` what `node_view` makes of it. Where it cannot be read, `fault` says why. The rest of a
    node changes all the time and is not held."""
    metadata = item["metadata"]
    kept: Object = {"metadata": {"name": metadata["name"], "resourceVersion": metadata["resourceVersion"]}}
    try:
        return kept | {"view": node_view(item), "fault": ""}
    except ValueError as error:
        return kept | {"view": None, "fault": str(error)}


def _tolerates(toleration: Mapping[str, Any], taint: Taint) -> bool:
    """The rule of Kubernetes (Taints and Tolerations): a field that a toleration leaves out matches every taint."""
    key, value, effect = taint
    if toleration.get("effect") not in (None, "", effect):
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return toleration.get("key") in (None, "", key)
    return toleration.get("key") == key and (toleration.get("value") or "") == value
