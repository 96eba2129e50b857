"""Who runs where and how much of each node is whose: kept from what watches tell; nothing is asked for, decided or written.

Of a node's allocatable cores, everything that we do not size is *reserved*: other pods, sidecars, pods of ours that start or
end, and pods that wait because no node has room for them. The rest is what its managed pods divide among themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from knative_sponge.controller.cluster.node import NodeView, SchedulingConstraints
from knative_sponge.controller.cluster.pod import PodView, view
from knative_sponge.controller.cluster.pod_request import NOTHING, PodRequest, of_revision
from knative_sponge.controller.kube.informer import Informer, key_of
from knative_sponge.controller.kube.resource import Key, Object

_log: Final = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""Cores are kept free for a pod that waits for so long. One that has not come by then waits for something else as well."""
AGAIN_S: Final = 600.0
"""So long after that was begun for a pod that has not come, it is begun again for another one of the same controller: one
that nobody can place may be made anew for ever."""


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
    unsized: set[Key] = field(default_factory=set)
    """Pods of which nobody knows what they take."""
    taken: dict[Key, float] = field(default_factory=dict)
    """Cores of pods that are not managed, and of sidecars of those that are."""
    memory: dict[Key, float] = field(default_factory=dict)
    """Bytes that pods request, managed or not."""
    summed: tuple[tuple[PodView, ...], float] | None = None
    """Its managed pods in order, and the sum of `taken`, while nothing of them has changed: both are asked for each second."""


class ClusterCapacity:
    """All of it. changed: told the name of each node whose division may have changed. clock: monotonic seconds.

    pods: all pods, kept by `kept_of_pod`. nodes: kept by `kept_of_node`.

    What cannot be read costs nobody else anything: a pod keeps its size and counts with the one it had last, a node is not
    divided. Nor is a node with a pod whose size was never known: its cores may be anybody's.
    """

    def __init__(
        self,
        pods: Informer,
        nodes: Informer,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pods: dict[Key, PodView] = {}
        """Every pod of a revision that can be read, whoever sizes it."""
        self._changed: Callable[[str], None] = lambda _node: None
        self._clock = clock
        self._nodes: dict[str, _Node] = {}
        self._homes: dict[Key, str] = {}
        self._waiting: dict[Key, tuple[float, SchedulingConstraints]] = {}
        self._waits_since: dict[Key, float] = {}
        self._begun: dict[str, float] = {}
        """When patience was begun, by the controller of the pods that wait or waited."""
        self._unread: set[Key] = set()
        """Pods that cannot be read and of which people were told."""
        self._subscribers: list[Callable[[PodView | None, PodView | None], None]] = []
        for item in nodes.objects.values():  # the process follows nodes before it leads
            self._node_changed(None, item)
        self._changed = changed
        nodes.subscribe(self._node_changed)
        pods.subscribe(self._pod_changed)

    def subscribe(self, subscriber: Callable[[PodView | None, PodView | None], None]) -> None:
        """Tell (before, after) of each pod of a revision."""
        self._subscribers.append(subscriber)

    @property
    def nodes(self) -> Iterator[str]:
        """Names of the nodes that are known or have pods."""
        return iter(tuple(self._nodes))

    def node(self, name: str) -> NodeView | None:
        """None while it is not known what is left of it."""
        found = self._nodes.get(name)
        return None if found is None or found.unsized else found.view

    def managed_on(self, name: str) -> tuple[PodView, ...]:
        """The managed pods of a node, in order of their names."""
        return self._summed(name)[0]

    def reserved(self, name: str) -> float:
        """Cores of a node that are not for its managed pods, those for waiting pods aside."""
        return self._summed(name)[1]

    def free_memory(self, name: str) -> float:
        """Bytes of a node that no pod requests; 0 while it is not known. Less than 0 where more was promised than it has."""
        found = self.node(name)
        return 0.0 if found is None else found.memory - sum(self._nodes[name].memory.values())

    def waiting(self) -> Mapping[str, float]:
        """Cores to set free for pods that wait for some, by node: each pod's on the node where most could be set free.

        Of the nodes that it may come to, by `SchedulingConstraints`; and for PATIENCE_S from when it was first seen to
        wait, since what else
        keeps it off is not known. Pods of one controller share that time until one of them lands, or AGAIN_S have passed. It
        never takes what a managed pod needs at the least.
        """
        late = self._clock() - PATIENCE_S
        waiting = {key: found for key, found in self._waiting.items() if self._waits_since[key] > late}
        if not waiting:
            return {}
        room: dict[str, float] = {}
        views: dict[str, NodeView] = {}
        for name in sorted(self._nodes):
            if (known := self.node(name)) is not None:
                least = sum(pod.settings.min_cores for pod in self.managed_on(name) if pod.settings is not None)
                room[name], views[name] = known.cores - self.reserved(name) - least, known
        placed: dict[str, float] = {}
        for key in sorted(waiting, key=lambda key: (-waiting[key][0], key)):
            cores, needs = waiting[key]
            possible = (name for name in room if room[name] >= cores and needs.met_by(views[name]))
            best = max(possible, key=lambda name: room[name], default=None)
            if best is not None:
                room[best] -= cores
                placed[best] = placed.get(best, 0.0) + cores
        return placed

    def _summed(self, name: str) -> tuple[tuple[PodView, ...], float]:
        found = self._nodes.get(name)
        if found is None:
            return (), 0.0
        if found.summed is None:
            found.summed = tuple(self.pods[key] for key in sorted(found.managed)), sum(found.taken.values())
        return found.summed

    def _node_changed(self, before: Object | None, after: Object | None) -> None:
        item = after or before
        assert item is not None
        name = item["metadata"]["name"]
        node = self._nodes.setdefault(name, _Node())
        if after is not None and after["fault"] and (before is None or before["fault"] != after["fault"]):
            _log.warning("node %s: %s; its cores are not divided", name, after["fault"])
        new = None if after is None else after["view"]
        if new != node.view:
            node.view = new
            self._changed(name)
        self._tidy(name)

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        item = after or before
        assert item is not None
        key = key_of(item)
        old, new = self.pods.pop(key, None), None
        what: PodRequest = NOTHING if after is None else after["footprint"]
        fault = what.fault
        if after is not None and of_revision(after) and not fault:
            try:
                new = view(after)
            except ValueError as error:
                fault = str(error)
            else:
                self.pods[key] = new
        self._tell_fault(key, fault)
        if after is None:
            self._waits_since.pop(key, None)
        elif what.waits is not None and key not in self._waits_since:
            self._waits_since[key] = self._patient_since(what.owner)
        elif what.node and before is not None:
            self._begun.pop(before["footprint"].owner, None)
        if what.fault:
            self._settle_unread(key, what.node, old)
        elif new is not None and managed(new):
            self._settle(key, new.node, taken=new.others, memory=what.memory, waits=None, ours=True)
        else:
            waits = None if what.waits is None else (what.cores, what.waits)
            self._settle(key, what.node, taken=what.cores, memory=what.memory, waits=waits, ours=False)
        if old is not None or new is not None:
            for subscriber in self._subscribers:
                subscriber(old, new)

    def _patient_since(self, owner: str) -> float:
        """When patience began that holds for a pod that is now seen to wait. owner: see `PodRequest`."""
        now = self._clock()
        self._begun = {each: at for each, at in self._begun.items() if now - at < AGAIN_S}
        return self._begun.setdefault(owner, now) if owner else now

    def _tell_fault(self, key: Key, fault: str) -> None:
        if not fault:
            self._unread.discard(key)
        elif key not in self._unread:
            self._unread.add(key)
            _log.warning("pod %s/%s: %s; it keeps its size", *key, fault)

    def _settle_unread(self, key: Key, name: str, old: PodView | None) -> None:
        """Book a pod with what it took when it could be read last."""
        node = self._nodes.get(name)
        known = node is not None and self._homes.get(key) == name and key not in node.unsized
        taken = memory = 0.0
        if node is not None and known:
            taken, memory = node.taken[key], node.memory[key]
            if old is not None and key in node.managed:
                taken += max(old.size, old.in_force or 0.0, old.allocated or 0.0)
        self._settle(key, name, taken=taken, memory=memory, waits=None, ours=False, sized=known)

    def _settle(
        self,
        key: Key,
        name: str,
        *,
        taken: float,
        memory: float,
        waits: tuple[float, SchedulingConstraints] | None,
        ours: bool,
        sized: bool = True,
    ) -> None:
        """Book a pod on a node, or on none, and off wherever it was. sized: is it known what it takes?"""
        if self._waiting.get(key) != waits:
            if waits is not None:
                self._waiting[key] = waits
            else:
                del self._waiting[key]
            for each in self._nodes:
                self._changed(each)
        home = self._homes.pop(key, "")
        if home and home != name:
            node = self._nodes[home]
            node.taken.pop(key, None)
            node.memory.pop(key, None)
            node.managed.discard(key)
            node.unsized.discard(key)
            node.summed = None
            self._changed(home)
            self._tidy(home)
        if not name:
            return
        self._homes[key] = name
        self._waits_since.pop(key, None)
        node = self._nodes.setdefault(name, _Node())
        node.summed = None
        was = node.taken.get(key), key in node.managed, key not in node.unsized
        node.taken[key], node.memory[key] = taken, memory
        (node.managed.add if ours else node.managed.discard)(key)
        (node.unsized.discard if sized else node.unsized.add)(key)
        if ours or was != (taken, ours, sized):
            self._changed(name)

    def _tidy(self, name: str) -> None:
        node = self._nodes[name]
        if node.view is None and not node.taken:
            del self._nodes[name]
