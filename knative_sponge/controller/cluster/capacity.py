"""Which pod is on which node, and how many of a node's cores its managed pods may divide; it only keeps what watches tell.

Of a node's allocatable cores everything that is not sized here is *reserved*: other pods, sidecars, and our own pods while
they start or end. Cores for pods that wait because no node has room for them are told apart (`waiting`). The rest is what
the managed pods of the node divide among themselves.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Final, Protocol

from knative_sponge.controller.cluster.node import NodeView, SchedulingConstraints
from knative_sponge.controller.cluster.ownership import ALL, Owned
from knative_sponge.controller.cluster.pod import PodView, view
from knative_sponge.controller.cluster.pod_request import NO_REQUEST, PodRequest, of_revision
from knative_sponge.controller.kube.informer import Changed, Informer, key_of
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.controller.quarantine import Failures, text

_log: Final = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""Cores are kept free for a waiting pod for so long. A pod that has not come by then waits for something else as well."""
_MOST_WAITING: Final = 100
"""Each waiting pod is compared with every node, before each division."""
AGAIN_S: Final = 600.0
"""Time between two such periods for the pods of one controller, where none of its pods lands on a node. Without that limit
cores would be kept free for ever for a pod that no node can take and whose controller makes it anew again and again."""


def managed(pod: PodView) -> bool:
    """May we size this pod? It runs with our proxy, its settings can be read, and its size is known in spec and status."""
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


class Owners(Protocol):
    """Says which pods are a Revision's: `ownership.Ownership`."""

    def owned(self, pod: Object) -> Owned | None: ...

    def subscribe(self, subscriber: Callable[[Key], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class _RoomNeeded:
    """What a pod waits for: cores, on a node that meets the constraints."""

    cores: float
    constraints: SchedulingConstraints


@dataclass(slots=True)
class _PodEntry:
    """One pod of the cluster, of a revision or not."""

    view: PodView | None = None
    """None: the pod belongs to no revision, or cannot be read."""
    node: str = ""
    """The node that the pod is booked on; empty for none."""
    managed: bool = False
    reserved: float = 0.0
    """Cores of its node that the pod takes away from the managed pods: all that it requests, or, where it is managed itself,
    what its sidecars request."""
    memory: float = 0.0
    """Bytes that the pod requests, managed or not."""
    sized: bool = True
    """Is it known what the pod takes?"""
    waits_for: _RoomNeeded | None = None
    waits_since: float | None = None
    """When patience began for this pod. A pod that stops waiting without landing on a node keeps it."""
    told_unreadable: bool = False
    """Were people told that the pod cannot be read?"""


@dataclass(frozen=True, slots=True)
class _Sums:
    """What follows from a node's pods."""

    managed: tuple[PodView, ...] = ()
    """In order of their names."""
    reserved: float = 0.0
    sized: bool = True
    """Is it known of every pod what it takes?"""


_EMPTY: Final = _Sums()


def _considered(needed: Mapping[Key, _RoomNeeded]) -> list[Key]:
    """The pods to look for a node for, the largest first: at most _MOST_WAITING, of each namespace as many."""
    largest_first = sorted(needed, key=lambda key: (-needed[key].cores, key))
    if len(largest_first) <= _MOST_WAITING:
        return largest_first
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int, Key]] = []
    for place, key in enumerate(largest_first):
        turns.append((seen[key[0]], place, key))
        seen[key[0]] += 1
    return [key for _, place, key in sorted(sorted(turns)[:_MOST_WAITING], key=lambda turn: turn[1])]


def _kept(pod: PodView) -> float:
    """Cores that a managed pod keeps although others wait."""
    least = 0.0 if pod.settings is None else pod.settings.min_cores
    return max(least, min(pod.admitted, pod.size))


@dataclass(slots=True)
class _NodeEntry:
    """One node: its object, if it has been seen, and the pods that are booked on it."""

    view: NodeView | None = None
    pods: dict[Key, _PodEntry] = field(default_factory=dict)
    sums: _Sums | None = None
    """None after a change of `pods`. They are kept because every node is asked for them each second."""


class ClusterCapacity:
    """Nodes, their pods and their cores.

    pods: informer of all pods, kept by `kept_of_pod`. nodes: informer of nodes, kept by `kept_of_node`. owners: says which pods
    are whose. changed: told the name of each node whose division may have changed. clock: monotonic seconds.

    An object that cannot be read harms no other one. A pod that cannot be read keeps its size and counts with what it took
    last. A node that cannot be read is not divided. A node is not divided either while a pod is on it of which was never
    known what it takes: any of the node's cores may be that pod's.
    """

    def __init__(
        self,
        pods: Informer,
        nodes: Informer,
        owners: Owners,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        failures: Failures | None = None,
    ) -> None:
        self._informer = pods
        self._owners = owners
        self._unreadable = (failures or Failures()).of("pod views")
        self._changed = changed
        self._clock = clock
        self._nodes: dict[str, _NodeEntry] = {}
        self._pods: dict[Key, _PodEntry] = {}
        self._of_revision: dict[Key, dict[Key, PodView]] = {}
        """Index of the pods with a view, by namespace and revision."""
        self._waiting: dict[Key, _PodEntry] = {}
        """Index of the pods that wait."""
        self._patience_began: dict[str, float] = {}
        """When patience began, by the uid of the controller whose pods wait or waited."""
        self._subscribers: list[Callable[[Changed[PodView]], None]] = []
        for item in nodes.objects.values():  # the process follows nodes before it leads
            self._take_node(Changed(key_of(item), None, item))
        nodes.subscribe(self._node_changed)
        pods.subscribe(self._pod_changed)
        owners.subscribe(self._owner_changed)

    def subscribe(self, subscriber: Callable[[Changed[PodView]], None]) -> None:
        """Tell `subscriber` each change of a pod of a revision. A pod that cannot be read any more is gone for subscribers."""
        self._subscribers.append(subscriber)

    @property
    def nodes(self) -> Iterator[str]:
        """Names of the nodes that are known or have pods."""
        return iter(tuple(self._nodes))

    def node(self, name: str) -> NodeView | None:
        """None while it is not known how many of the node's cores are left."""
        entry = self._nodes.get(name)
        return entry.view if entry is not None and self._sums(name).sized else None

    def managed_on(self, name: str) -> tuple[PodView, ...]:
        """The managed pods of a node, in order of their names."""
        return self._sums(name).managed

    def reserved(self, name: str) -> float:
        """Cores of a node that its managed pods may not have; those for waiting pods are not among them."""
        return self._sums(name).reserved

    def free_memory(self, name: str) -> float:
        """Bytes of a node that no pod requests; 0 while that is not known, below 0 where pods request more than there is."""
        node = self.node(name)
        return 0.0 if node is None else node.memory - sum(pod.memory for pod in self._nodes[name].pods.values())

    def pods_of(self, revision: Key) -> Collection[PodView]:
        """The pods of a revision that can be read, whoever sizes them. revision: namespace and name."""
        return self._of_revision.get(revision, {}).values()

    def waiting(self) -> Mapping[str, float]:
        """Cores to set free for pods that wait, by node. Each pod's are set free on the node where most can be.

        A pod's nodes are those that meet its `SchedulingConstraints`. Its cores are kept free for PATIENCE_S from when it was
        first seen to wait, because what else keeps it off is not known. The pods of one controller share that time, until
        one of them lands on a node or AGAIN_S have passed. No managed pod loses to a waiting pod its `min-cores`, nor
        what it has of the cores that it was admitted with.
        """
        late = self._clock() - PATIENCE_S
        needed = {
            key: pod.waits_for
            for key, pod in self._waiting.items()
            if pod.waits_for is not None and pod.waits_since is not None and pod.waits_since > late
        }
        if not needed:
            return {}
        room: dict[str, float] = {}
        nodes: dict[str, NodeView] = {}
        for name in sorted(self._nodes):
            if (node := self.node(name)) is not None:
                least = sum(map(_kept, self.managed_on(name)))
                room[name], nodes[name] = node.cores - self.reserved(name) - least, node
        placed: dict[str, float] = {}
        for key in _considered(needed):
            cores, constraints = needed[key].cores, needed[key].constraints
            possible = (name for name in room if room[name] >= cores and constraints.met_by(nodes[name]))
            best = max(possible, key=lambda name: room[name], default=None)
            if best is not None:
                room[best] -= cores
                placed[best] = placed.get(best, 0.0) + cores
        return placed

    def _sums(self, name: str) -> _Sums:
        node = self._nodes.get(name)
        if node is None:
            return _EMPTY
        if node.sums is None:
            views: list[PodView] = []
            reserved, sized = 0.0, True
            for pod in node.pods.values():
                reserved += pod.reserved
                sized = sized and pod.sized
                if pod.managed and pod.view is not None:
                    views.append(pod.view)
            views.sort(key=attrgetter("key"))
            node.sums = _Sums(tuple(views), reserved, sized)
        return node.sums

    def _node_changed(self, changed: Changed[Object]) -> None:
        if self._take_node(changed):
            self._changed(changed.key[1])

    def _take_node(self, changed: Changed[Object]) -> bool:
        """Take over what an informer tells of a node. May its division have changed?"""
        _, name = changed.key
        before, after = changed.before, changed.after
        if after is not None and after["fault"] and (before is None or before["fault"] != after["fault"]):
            _log.warning("node %s: %s; its cores are not divided", name, after["fault"])
        node = self._nodes.setdefault(name, _NodeEntry())
        old, node.view = node.view, None if after is None else after["view"]
        self._drop_if_empty(name)
        return node.view != old

    def _pod_changed(self, changed: Changed[Object]) -> None:
        key, after = changed.key, changed.after
        request: PodRequest = NO_REQUEST if after is None else after["request"]
        pod = self._pods.setdefault(key, _PodEntry())
        old, new, fault = pod.view, None, request.fault
        if after is not None and of_revision(after) and not fault:
            try:
                new = self._view(after)
            except ValueError as error:
                fault = text(error)
            except Exception as error:
                fault = f"{type(error).__name__}: {text(error)}"
                self._unreadable.failed(key, error)
        self._set_view(key, pod, new)
        if fault and not pod.told_unreadable:
            _log.warning("pod %s/%s: %s; it keeps its size", *key, fault)
        pod.told_unreadable = bool(fault)
        self._note_waiting(pod, request, changed.before)
        if request.fault:
            self._book_unreadable(key, pod, request.node, old)
        elif new is not None and managed(new):
            self._book(key, pod, new.node, reserved=new.others, memory=request.memory, managed=True)
        else:
            waits_for = None if request.waits_for is None else _RoomNeeded(request.cores, request.waits_for)
            self._book(key, pod, request.node, reserved=request.cores, memory=request.memory, waits_for=waits_for)
        if after is None:
            del self._pods[key]
        if old is not None or new is not None:
            told, failed = Changed(key, old, new), None
            for subscriber in self._subscribers:
                try:
                    subscriber(told)
                except Exception as error:
                    failed = error
            if failed is not None:
                raise failed  # the informer reports it, and tells of the pod again

    def _view(self, pod: Object) -> PodView:
        owned = self._owners.owned(pod)
        if owned is None:
            return view(pod, None)
        return view(
            pod,
            owned.settings,
            service=owned.service,
            owner=owned.owner,
            head_room=owned.head_room,
            proven=owned.admitted,
        )

    def _owner_changed(self, revision: Key) -> None:
        """Look again at the pods of a revision, or of all."""
        revisions = list(self._of_revision) if revision == ALL else [revision]
        for key in [key for each in revisions for key in self._of_revision.get(each, ())]:
            if (pod := self._informer.objects.get(key)) is not None:
                self._unreadable.run(key, partial(self._pod_changed, Changed(key, pod, pod)))

    def _set_view(self, key: Key, pod: _PodEntry, new: PodView | None) -> None:
        if pod.view is not None:
            revision = key[0], pod.view.revision
            del self._of_revision[revision][key]
            if not self._of_revision[revision]:
                del self._of_revision[revision]
        pod.view = new
        if new is not None:
            self._of_revision.setdefault((key[0], new.revision), {})[key] = new

    def _note_waiting(self, pod: _PodEntry, request: PodRequest, before: Object | None) -> None:
        """Patience begins when a pod is first seen to wait. It may begin anew once a pod of the controller has landed."""
        if request.waits_for is not None:
            if pod.waits_since is None:
                pod.waits_since = self._patience_since(request.owner)
        elif request.node and before is not None:
            self._patience_began.pop(before["request"].owner, None)

    def _patience_since(self, owner: str) -> float:
        """When the patience began that holds for a pod that is now first seen to wait. owner: see `PodRequest`."""
        now = self._clock()
        self._patience_began = {each: at for each, at in self._patience_began.items() if now - at < AGAIN_S}
        return self._patience_began.setdefault(owner, now) if owner else now

    def _book_unreadable(self, key: Key, pod: _PodEntry, name: str, old: PodView | None) -> None:
        """Book a pod with what it took when it could be read last. old: its view until now."""
        if not name or pod.node != name or not pod.sized:
            self._book(key, pod, name, reserved=0.0, memory=0.0, sized=False)
            return
        reserved = pod.reserved
        if old is not None and pod.managed:
            reserved += max(old.size, old.in_force or 0.0, old.allocated or 0.0)
        self._book(key, pod, name, reserved=reserved, memory=pod.memory)

    def _book(
        self,
        key: Key,
        pod: _PodEntry,
        name: str,
        *,
        reserved: float,
        memory: float,
        managed: bool = False,
        sized: bool = True,
        waits_for: _RoomNeeded | None = None,
    ) -> None:
        """Book a pod on a node, or on none if `name` is empty, and off any other one. Further arguments: see `_PodEntry`."""
        if pod.waits_for != waits_for:
            pod.waits_for = waits_for
            if waits_for is not None:
                self._waiting[key] = pod
            else:
                del self._waiting[key]
            for each in self._nodes:
                self._changed(each)
        moved = pod.node != name
        if moved and pod.node:
            home = self._nodes[pod.node]
            del home.pods[key]
            home.sums = None
            self._changed(pod.node)
            self._drop_if_empty(pod.node)
        before = pod.reserved, pod.managed, pod.sized
        pod.node, pod.reserved, pod.memory, pod.managed, pod.sized = name, reserved, memory, managed, sized
        if not name:
            return
        pod.waits_since = None
        node = self._nodes.setdefault(name, _NodeEntry())
        node.pods[key] = pod
        node.sums = None
        if moved or managed or before != (reserved, managed, sized):
            self._changed(name)

    def _drop_if_empty(self, name: str) -> None:
        node = self._nodes[name]
        if node.view is None and not node.pods:
            del self._nodes[name]
