"""Who runs where and how much of each node is whose: kept from what watches tell; nothing is asked for, decided or written.

Of a node's allocatable cores, everything that we do not size is *reserved*: other pods, sidecars, pods of ours that start or
end, and pods that wait because no node has room for them. The rest is what its managed pods divide among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from knative_sponge.controller.informer import Informer, key_of
from knative_sponge.controller.podview import PodView, requested, view
from knative_sponge.controller.resource import Key, Object
from knative_sponge.core.quantity import parse_quantity

_ENDED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as sizing needs it. cores, memory: allocatable. schedulable: may new pods come here? address: of its kubelet."""

    name: str
    cores: float
    memory: float
    schedulable: bool = True
    address: str = ""


def node_view(node: Object) -> NodeView:
    """From the node's object."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return NodeView(
        name=node["metadata"]["name"],
        cores=parse_quantity(allocatable.get("cpu", "0")),
        memory=parse_quantity(allocatable.get("memory", "0")),
        schedulable=not (node.get("spec") or {}).get("unschedulable", False),
        address=next((one["address"] for one in _addresses(node)), ""),
    )


def kept_of_node(item: Object) -> Object:
    """Its name and address, what it can give, whether pods may come; the rest of it changes every few seconds."""
    metadata = item["metadata"]
    allocatable = (item.get("status") or {}).get("allocatable") or {}
    return {
        "metadata": {"name": metadata["name"], "resourceVersion": metadata["resourceVersion"]},
        "spec": {"unschedulable": (item.get("spec") or {}).get("unschedulable", False)},
        "status": {
            "allocatable": {name: allocatable[name] for name in ("cpu", "memory") if name in allocatable},
            "addresses": _addresses(item),
        },
    }


def _addresses(node: Object) -> list[Object]:
    return [one for one in (node.get("status") or {}).get("addresses") or () if one["type"] == "InternalIP"]


@dataclass(frozen=True, slots=True)
class Foreign:
    """A pod that is not ours to size. node: empty while it has none. waits: no node has the cores that it asks for.

    memory: bytes that it requests.
    """

    node: str
    cores: float
    waits: bool
    memory: float = 0.0


def foreign(pod: Object) -> Foreign:
    """What a pod takes from a node; nothing once it has ended."""
    status = pod.get("status") or {}
    if status.get("phase") in _ENDED:
        return Foreign("", 0.0, False)
    node = pod["spec"].get("nodeName") or ""
    return Foreign(node, requested(pod), not node and _lacks_cpu(status), requested(pod, "memory"))


def kept_of_foreign(item: Object) -> Object:
    """Who it is and what `foreign` makes of it: a cluster has many pods, and they are large."""
    metadata = item["metadata"]
    names = {name: metadata[name] for name in ("name", "namespace", "resourceVersion")}
    return {"metadata": names, "foreign": foreign(item)}


def managed(pod: PodView) -> bool:
    """Is the pod's size ours: does it run, with our proxy and readable settings, and may it be resized?"""
    return (
        pod.sponge
        and pod.settings is not None
        and pod.settings.slo_s is not None
        and bool(pod.node)
        and pod.phase == "Running"
        and not pod.terminating
        and bool(pod.container)
        and pod.size > 0
        and pod.in_force is not None
    )


@dataclass(slots=True)
class _Node:
    view: NodeView | None = None
    managed: set[Key] = field(default_factory=set)
    taken: dict[Key, float] = field(default_factory=dict)
    """Cores of pods that are not managed, and of sidecars of those that are."""
    memory: dict[Key, float] = field(default_factory=dict)
    """Bytes that pods request, managed or not."""


class Cluster:
    """All of it. changed: told the name of each node whose division may have changed.

    pods: pods of revisions. others: all other pods, kept by `kept_of_foreign`. nodes: kept by `kept_of_node`.
    """

    def __init__(self, pods: Informer, others: Informer, nodes: Informer, changed: Callable[[str], None]) -> None:
        self.pods: dict[Key, PodView] = {}
        """Every pod of a revision, whoever sizes it."""
        self._changed = changed
        self._nodes: dict[str, _Node] = {}
        self._homes: dict[Key, str] = {}
        self._waiting: dict[Key, float] = {}
        self._subscribers: list[Callable[[PodView | None, PodView | None], None]] = []
        nodes.subscribe(self._node_changed)
        others.subscribe(self._other_changed)
        pods.subscribe(self._pod_changed)

    def subscribe(self, subscriber: Callable[[PodView | None, PodView | None], None]) -> None:
        """Tell (before, after) of each pod of a revision."""
        self._subscribers.append(subscriber)

    @property
    def nodes(self) -> Iterator[str]:
        """Names of the nodes that are known or have pods."""
        return iter(tuple(self._nodes))

    def node(self, name: str) -> NodeView | None:
        """None while it is not known."""
        found = self._nodes.get(name)
        return None if found is None else found.view

    def managed_on(self, name: str) -> tuple[PodView, ...]:
        """The managed pods of a node, in order of their names."""
        found = self._nodes.get(name)
        return () if found is None else tuple(self.pods[key] for key in sorted(found.managed))

    def reserved(self, name: str) -> float:
        """Cores of a node that are not for its managed pods, those for waiting pods aside."""
        found = self._nodes.get(name)
        return 0.0 if found is None else sum(found.taken.values())

    def free_memory(self, name: str) -> float:
        """Bytes of a node that no pod requests; 0 while it is not known. Less than 0 where more was promised than it has."""
        found = self._nodes.get(name)
        return 0.0 if found is None or found.view is None else found.view.memory - sum(found.memory.values())

    def waiting(self) -> Mapping[str, float]:
        """Cores to set free for pods that wait for some, by node: each pod's on the node where most could be set free.

        What else a pod needs of a node is not looked at, so this may set cores free in vain; it never takes what a
        managed pod needs at the least.
        """
        if not self._waiting:
            return {}
        room: dict[str, float] = {}
        for name, node in self._nodes.items():
            if node.view is not None and node.view.schedulable:
                least = sum(pod.settings.min_cores for pod in self.managed_on(name) if pod.settings is not None)
                room[name] = node.view.cores - sum(node.taken.values()) - least
        placed: dict[str, float] = {}
        for key in sorted(self._waiting, key=lambda key: (-self._waiting[key], key)):
            cores = self._waiting[key]
            best = max(sorted(room), key=lambda name: room[name], default=None)
            if best is not None and room[best] >= cores:
                room[best] -= cores
                placed[best] = placed.get(best, 0.0) + cores
        return placed

    def _node_changed(self, before: Object | None, after: Object | None) -> None:
        item = after or before
        assert item is not None
        name = item["metadata"]["name"]
        node = self._nodes.setdefault(name, _Node())
        new = None if after is None else node_view(after)
        if new != node.view:
            node.view = new
            self._changed(name)
        self._tidy(name)

    def _other_changed(self, before: Object | None, after: Object | None) -> None:
        item = after or before
        assert item is not None
        what: Foreign = after["foreign"] if after is not None else Foreign("", 0.0, False)
        self._settle_foreign(key_of(item), what)

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        item = after or before
        assert item is not None
        key = key_of(item)
        old = self.pods.pop(key, None)
        new = None if after is None else view(after)
        what = Foreign("", 0.0, False) if after is None else foreign(after)
        if new is not None:
            self.pods[key] = new
        if new is not None and managed(new):
            self._settle(key, new.node, taken=new.others, memory=what.memory, waits=0.0, ours=True)
        else:
            self._settle_foreign(key, what)
        for subscriber in self._subscribers:
            subscriber(old, new)

    def _settle_foreign(self, key: Key, what: Foreign) -> None:
        waits = what.cores if what.waits else 0.0
        self._settle(key, what.node, taken=what.cores, memory=what.memory, waits=waits, ours=False)

    def _settle(self, key: Key, name: str, *, taken: float, memory: float, waits: float, ours: bool) -> None:
        """Book a pod on a node, or on none, and off wherever it was."""
        if self._waiting.get(key, 0.0) != waits:
            if waits:
                self._waiting[key] = waits
            else:
                del self._waiting[key]
            for each in self._nodes:
                self._changed(each)
        home = self._homes.pop(key, "")
        if home and home != name:
            self._nodes[home].taken.pop(key, None)
            self._nodes[home].memory.pop(key, None)
            self._nodes[home].managed.discard(key)
            self._changed(home)
            self._tidy(home)
        if not name:
            return
        self._homes[key] = name
        node = self._nodes.setdefault(name, _Node())
        was = node.taken.get(key), key in node.managed
        node.taken[key], node.memory[key] = taken, memory
        if ours:
            node.managed.add(key)
        else:
            node.managed.discard(key)
        if ours or was != (taken, ours):
            self._changed(name)

    def _tidy(self, name: str) -> None:
        node = self._nodes[name]
        if node.view is None and not node.taken:
            del self._nodes[name]


def _lacks_cpu(status: Object) -> bool:
    return any(
        entry.get("type") == "PodScheduled"
        and entry.get("status") == "False"
        and entry.get("reason") == "Unschedulable"
        and "Insufficient cpu" in (entry.get("message") or "")
        for entry in status.get("conditions") or ()
    )
