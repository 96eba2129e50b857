"""Memory of pods whose annotations give it bounds: follows what their containers are measured to use. On the leader only.

Kubelets are asked for the memory in use, `core/allocation/memory.py` says what to ask for, and the pod's resizer puts that into
its patches. Memory must never be in the way of cores, and a kubelet takes or leaves a pod's resize as a whole. So a growth of
memory goes no further than the node has memory that nobody requests, and a growth that waits or fails all the same is taken
back.

A container without a memory limit gets none, since a limit could kill it: only its request moves. Where request and limit are
apart, the first move makes them one. Two kinds of containers are left alone: those that restart when their memory is resized,
and those whose working set is not known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from knative_sponge.controller.cluster.capacity import ClusterCapacity
from knative_sponge.controller.cluster.node import NodeView
from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.sizing.kubelet import Place
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.core.allocation.memory import STEP, MemoryNeed
from knative_sponge.core.resizing.events import Report
from knative_sponge.errors import KubeError

_log: Final = logging.getLogger(__name__)

_PERIOD_S: Final = 5.0
_AT_ONCE: Final = 8
"""Kubelets that are asked at the same time."""
_PAGE: Final = 64 * 2**10
"""Sizes that differ by less are the same: kernels keep whole pages."""


class Source(Protocol):
    """Where measurements come from: `kubelet.Kubelets`."""

    async def working_sets(self, address: str) -> Mapping[Place, int]:
        """Bytes in use by container, of the node with this address. Raises KubeError."""
        ...


@dataclass(slots=True)
class _Pod:
    uid: str
    need: MemoryNeed = field(default_factory=MemoryNeed)
    moving: tuple[int | None, int, str] | None = None
    """Before, after and why, until it is in force or taken back."""


class MemorySizer:
    """`run` it on the leader only. resizers: those of the divider. report: tells people. clock: monotonic seconds."""

    def __init__(
        self,
        cluster: ClusterCapacity,
        resizers: Mapping[Key, PodResizer],
        source: Source,
        report: Callable[[PodResizer, Report], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._hands = resizers
        self._source = source
        self._report = report
        self._clock = clock
        self._pods: dict[Key, _Pod] = {}
        self._silent: set[str] = set()
        """Nodes that did not answer last and of which people were told."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_PERIOD_S)

    async def look(self) -> None:
        """One round over all nodes with pods whose memory has bounds."""
        nodes: dict[str, list[Key]] = {}
        for key, resizer in self._hands.items():
            if follows(resizer.pod):
                nodes.setdefault(resizer.pod.node, []).append(key)
                self._watch(resizer)
        kept = {key for keys in nodes.values() for key in keys}
        self._pods = {key: pod for key, pod in self._pods.items() if key in kept}
        self._silent &= nodes.keys()
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for name, keys in nodes.items():
                group.create_task(self._look_at(name, keys, places))

    async def _look_at(self, name: str, keys: Sequence[Key], places: asyncio.Semaphore) -> None:
        node = self._cluster.node(name)
        if node is None or not node.address:
            return
        try:
            async with places:
                used = await self._source.working_sets(node.address)
        except KubeError as error:
            if name not in self._silent:
                self._silent.add(name)
                _log.warning("memory of pods on node %s is left alone until its kubelet answers: %s", name, error)
            return
        if name in self._silent:
            self._silent.discard(name)
            _log.info("the kubelet of node %s answers again", name)
        self._size(node, list(self._present(keys)), used)

    def _present(self, keys: Sequence[Key]) -> Iterator[tuple[PodResizer, _Pod]]:
        """Those that are still there."""
        for key in keys:
            resizer, pod = self._hands.get(key), self._pods.get(key)
            if resizer is not None and pod is not None and pod.uid == resizer.pod.uid and follows(resizer.pod):
                yield resizer, pod

    def _size(self, node: NodeView, pods: Sequence[tuple[PodResizer, _Pod]], used: Mapping[Place, int]) -> None:
        # What was asked for and is not in any spec yet is promised as well.
        free = int(self._cluster.free_memory(node.name)) - sum(
            _unbooked(resizer.pod, resizer.memory) for resizer, _ in pods
        )
        now = self._clock()
        for resizer, pod in pods:
            view = resizer.pod
            measured = used.get((*view.key, view.container))
            if measured is None or resizer.memory is not None or not _settled(view):
                continue
            low, high = _bounds(view, node)
            room = (view.memory_request or 0) + max(free, 0)
            wanted = pod.need.target(measured, view.memory, low, high, room, now)
            if wanted is not None:
                free -= _unbooked(view, wanted)
                pod.moving = view.memory, wanted, f"{_text(measured)} are in use"
                resizer.resize_memory(wanted)

    def _watch(self, resizer: PodResizer) -> None:
        """Draw the conclusions of what became of the last move."""
        view = resizer.pod
        pod = self._pods.get(view.key)
        if pod is None or pod.uid != view.uid:
            pod = self._pods[view.key] = _Pod(view.uid)
        if (refused := resizer.refused_memory) is not None:
            resizer.refused_memory = None
            pod.need.refused(refused, view.memory, self._clock())
            if pod.moving is not None:
                self._report(resizer, Report("ResizeFailed", f"memory {_move(pod.moving)} was refused"))
            pod.moving = None
        if resizer.memory is not None or view.memory is None or view.memory_in_force is None:
            return
        if _settled(view):
            if pod.moving is not None and _same(view.memory, pod.moving[1]):
                self._report(resizer, Report("MemoryResized", f"memory {_move(pod.moving)}: {pod.moving[2]}"))
            pod.moving = None
            return
        grows = view.memory > view.memory_in_force
        # Before Kubernetes 1.34 a growth cannot be taken back; then the kubelet tries for as long as it takes.
        if (grows and view.pending and pod.need.may_shrink) or (not grows and view.progress == "Error"):
            _log.info("%s/%s: memory goes back to %s: %s", *view.key, _text(view.memory_in_force), view.message)
            pod.need.refused(view.memory, view.memory_in_force, self._clock())
            pod.moving = None
            resizer.resize_memory(view.memory_in_force)


def follows(pod: PodView) -> bool:
    """Does the pod's memory follow what it uses?"""
    settings = pod.settings
    bounded = settings is not None and (settings.min_memory is not None or settings.max_memory is not None)
    return bounded and not pod.memory_restarts


def _bounds(pod: PodView, node: NodeView) -> tuple[int, int]:
    """Least and most bytes; the bound that the annotations leave out is as far as one can go."""
    settings = pod.settings
    assert settings is not None
    if settings.max_memory is None:
        assert settings.min_memory is not None
        return settings.min_memory, max(settings.min_memory, int(node.memory))
    return min(STEP, settings.max_memory) if settings.min_memory is None else settings.min_memory, settings.max_memory


def _settled(pod: PodView) -> bool:
    """Is the memory in spec in force? Where there is none to be in force, it is."""
    return pod.memory is None or (pod.memory_in_force is not None and _same(pod.memory, pod.memory_in_force))


def _unbooked(pod: PodView, memory: int | None) -> int:
    """Bytes that a pod will request beyond those of its spec."""
    return 0 if memory is None else max(memory - (pod.memory_request or 0), 0)


def _same(one: int, other: int) -> bool:
    return abs(one - other) < _PAGE


def _move(moving: tuple[int | None, int, str]) -> str:
    before, after, _ = moving
    return f"{'none' if before is None else _text(before)} → {_text(after)}"


def _text(size: int) -> str:
    return f"{size / 2**20:.0f}Mi"
