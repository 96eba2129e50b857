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
from functools import partial
from typing import Final, Protocol

from knative_sponge.controller.cluster.capacity import ClusterCapacity
from knative_sponge.controller.cluster.node import NodeView
from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.sizing.memory_usage import Place
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.core.allocation.memory import STEP, MemoryNeed
from knative_sponge.core.resizing.events import Report
from knative_sponge.errors import KubeError

_log: Final = logging.getLogger(__name__)

_PERIOD_S: Final = 5.0
_AT_ONCE: Final = 8
"""Kubelets that are asked at the same time."""
_PAGE: Final = 64 * 2**10
"""Bytes. Sizes that differ by less are the same, since kernels keep whole pages."""


class Source(Protocol):
    """Where measurements come from: `kubelet.Kubelets`."""

    async def working_sets(self, address: str) -> Mapping[Place, int]:
        """Bytes in use by container, of the node with this address. Raises KubeError."""
        ...


@dataclass(frozen=True, slots=True)
class _Move:
    """A change of a pod's memory from `before` to `after` bytes, and why it was asked for."""

    before: int | None
    after: int
    why: str

    def __str__(self) -> str:
        return f"{'none' if self.before is None else _text(self.before)} → {_text(self.after)}"


@dataclass(slots=True)
class _Pod:
    uid: str
    need: MemoryNeed = field(default_factory=MemoryNeed)
    move: _Move | None = None
    """Until it is in force or taken back."""


class MemorySizer:
    """`run` it on the leader only. managed: the pods that the divider sizes. report: tells people. clock: monotonic seconds."""

    def __init__(
        self,
        cluster: ClusterCapacity,
        managed: Mapping[Key, PodState],
        source: Source,
        report: Callable[[PodResizer, Report], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        failures: Failures | None = None,
    ) -> None:
        failures = failures or Failures()
        self._pod_steps, self._node_steps = failures.of("memory"), failures.of("memory of nodes")
        self._cluster = cluster
        self._managed = managed
        self._source = source
        self._report = report
        self._clock = clock
        self._pods: dict[Key, _Pod] = {}
        self._silent: set[str] = set()
        """Nodes whose kubelets did not answer last time. People were told of it."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_PERIOD_S)

    async def look(self) -> None:
        """One round over all nodes with pods whose memory has bounds."""
        nodes: dict[str, list[Key]] = {}
        for key, pod in self._managed.items():
            if self._pod_steps.run(key, partial(self._conclude, pod.resizer)):
                nodes.setdefault(pod.resizer.pod.node, []).append(key)
        kept = {key for keys in nodes.values() for key in keys}
        self._pods = {key: known for key, known in self._pods.items() if key in kept}
        self._silent &= nodes.keys()
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for name, keys in nodes.items():
                group.create_task(self._node_steps.wait_for(name, partial(self._look_at, name, keys, places)))

    def refused(self, resizer: PodResizer, memory: int) -> None:
        """The API server has refused a patch with so many bytes, and they are given up."""
        view = resizer.pod
        pod = self._pods.get(view.key)
        if pod is None or pod.uid != view.uid:
            return
        pod.need.refused(memory, view.memory, self._clock())
        if pod.move is not None:
            self._report(resizer, Report("ResizeFailed", f"memory {pod.move} was refused"))
        pod.move = None

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
        """Those of the pods that are still there."""
        for key in keys:
            managed, pod = self._managed.get(key), self._pods.get(key)
            if managed is None or pod is None:
                continue
            view = managed.resizer.pod
            if pod.uid == view.uid and follows(view):
                yield managed.resizer, pod

    def _size(self, node: NodeView, pods: Sequence[tuple[PodResizer, _Pod]], used: Mapping[Place, int]) -> None:
        # Memory that was asked for is promised as well, though it is in no spec yet.
        free = int(self._cluster.free_memory(node.name)) - sum(
            _unbooked(resizer.pod, resizer.memory) for resizer, _ in pods
        )
        for resizer, pod in pods:
            taken = self._pod_steps.run(resizer.pod.key, partial(self._size_one, node, resizer, pod, used, free))
            free -= taken or 0

    def _size_one(self, node: NodeView, resizer: PodResizer, pod: _Pod, used: Mapping[Place, int], free: int) -> int:
        """Returns the bytes that this takes of those that are free."""
        view = resizer.pod
        measured = used.get((*view.key, view.container))
        if measured is None or resizer.memory is not None or not _in_force(view):
            return 0
        low, high = _bounds(view, node)
        room = (view.memory_request or 0) + max(free, 0)
        wanted = pod.need.target(measured, view.memory, low, high, room, self._clock())
        if wanted is None:
            return 0
        pod.move = _Move(view.memory, wanted, f"{_text(measured)} are in use")
        resizer.resize_memory(wanted)
        return _unbooked(view, wanted)

    def _conclude(self, resizer: PodResizer) -> bool:
        """Returns whether the pod's memory follows what it uses. If so, see what became of its last move."""
        if not follows(resizer.pod):
            return False
        self._conclude_move(resizer)
        return True

    def _conclude_move(self, resizer: PodResizer) -> None:
        """Report a move once it is in force, take it back where it cannot come into force."""
        view = resizer.pod
        pod = self._pods.get(view.key)
        if pod is None or pod.uid != view.uid:
            pod = self._pods[view.key] = _Pod(view.uid)
        if resizer.memory is not None or view.memory is None or view.memory_in_force is None:
            return
        if _in_force(view):
            if pod.move is not None and _same(view.memory, pod.move.after):
                self._report(resizer, Report("MemoryResized", f"memory {pod.move}: {pod.move.why}"))
            pod.move = None
            return
        grows = view.memory > view.memory_in_force
        # Before Kubernetes 1.34 a growth cannot be taken back. The kubelet then tries for as long as it takes.
        if (grows and view.pending and pod.need.may_shrink) or (not grows and view.progress == "Error"):
            _log.info("%s/%s: memory goes back to %s: %s", *view.key, _text(view.memory_in_force), view.message)
            pod.need.refused(view.memory, view.memory_in_force, self._clock())
            pod.move = None
            resizer.resize_memory(view.memory_in_force)


def follows(pod: PodView) -> bool:
    """Does the pod's memory follow what it uses?"""
    settings = pod.settings
    bounded = settings is not None and (settings.min_memory is not None or settings.max_memory is not None)
    return bounded and not pod.memory_restarts


def _bounds(pod: PodView, node: NodeView) -> tuple[int, int]:
    """Least and most bytes. Where the annotations leave out a bound, it is the least step or all of the node's memory."""
    settings = pod.settings
    assert settings is not None
    if settings.max_memory is None:
        assert settings.min_memory is not None
        return settings.min_memory, max(settings.min_memory, int(node.memory))
    return min(STEP, settings.max_memory) if settings.min_memory is None else settings.min_memory, settings.max_memory


def _in_force(pod: PodView) -> bool:
    """Is the memory in spec in force? Also where spec names none."""
    return pod.memory is None or (pod.memory_in_force is not None and _same(pod.memory, pod.memory_in_force))


def _unbooked(pod: PodView, memory: int | None) -> int:
    """Bytes that a pod will request beyond those of its spec."""
    return 0 if memory is None else max(memory - (pod.memory_request or 0), 0)


def _same(one: int, other: int) -> bool:
    return abs(one - other) < _PAGE


def _text(size: int) -> str:
    return f"{size / 2**20:.0f}Mi"
