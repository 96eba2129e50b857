"""The sizes of all pods, on the leader: puts divider, resizers, proxies and solver together. Decides no size."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

from knative_sponge.controller.cluster.capacity import ClusterCapacity
from knative_sponge.controller.cluster.ownership import Ownership
from knative_sponge.controller.cluster.pod import PodView, own_token
from knative_sponge.controller.cluster.watches import Watches
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.events import Event, Recorder
from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.profiles.collector import ModelCollector
from knative_sponge.controller.profiles.profile import key_of
from knative_sponge.controller.profiles.store import ProfileKeeper
from knative_sponge.controller.proxies.cores_client import CoresClient
from knative_sponge.controller.proxies.demand_streams import Address, DemandStreams
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.metrics import Metrics, ResizeOutcome
from knative_sponge.controller.sizing.cpsat import Refiner
from knative_sponge.controller.sizing.divider import Divider
from knative_sponge.controller.sizing.hybrid_pod_counts import PERIOD_S, PodCounts
from knative_sponge.controller.sizing.memory import MemorySizer
from knative_sponge.controller.sizing.memory_usage import Kubelets
from knative_sponge.controller.sizing.overview import Overviews
from knative_sponge.controller.sizing.pod_resizer import Patched, PhaseChanged, PodResizer, Refused
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.controller.sizing.quota_refusals import QuotaRefusals
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.resizing.events import QuotaFreed, Report, ReportKind
from knative_sponge.core.resizing.facts import ResizePhase
from knative_sponge.core.resizing.phase import Phase
from knative_sponge.wire.http import ADMIN_PORT

_log: Final = logging.getLogger(__name__)

_ROUND: Final = ("", "")
"""Stands for no object: what a round does for all of them."""
_PUBLISH_S: Final = 1.0
_LEARN_S: Final = 15.0
_SILENT_S: Final = 30.0
"""A pod that says nothing for so long is reported."""
_SILENT_AGAIN_S: Final = 600.0
"""It is reported again after so long."""
_REPEAT_S: Final = 10.0
"""Between two events of one kind about a revision: a surge resizes often, and each event is an object in the API server."""
_OUTCOMES: Final[dict[ResizePhase, ResizeOutcome]] = {
    ResizePhase.DEFERRED: "deferred",
    ResizePhase.INFEASIBLE: "infeasible",
    ResizePhase.ERROR: "error",
}


class Sizer:
    """`run` it on the leader only, beside `Watches.run`. Satisfies `pod_resizer.ResizeEffects`.

    owners: says which pods are whose. port: of the proxies' admin server. token: of a pod's control routes; empty is not known.
    growth: see `GrowthRules`. failures: where objects that fail are reported. clock: monotonic seconds.
    """

    def __init__(
        self,
        kube: Kube,
        watches: Watches,
        owners: Ownership,
        recorder: Recorder,
        metrics: Metrics,
        board: Board,
        keeper: ProfileKeeper,
        rng: random.Random,
        *,
        port: int = ADMIN_PORT,
        token: Callable[[PodView], str] = own_token,
        growth: GrowthRules | None = None,
        failures: Failures | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kube = kube
        self._token = token
        self._watches = watches
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._cores_client = CoresClient(port)
        self._refiner = Refiner()
        self._reported: dict[tuple[str, str, str], float] = {}
        """When people were told last, by namespace, revision and reason."""
        self._recording: set[asyncio.Task[object]] = set()
        failures = failures or Failures()
        self._owners = owners
        self._steps = failures.of("sizes")
        self.cluster = ClusterCapacity(watches.pods, watches.nodes, owners, self._touch, clock, failures)
        self._quotas = QuotaRefusals()
        self.divider = Divider(
            self.cluster,
            lambda pod: PodResizer(pod, self, clock, failures),
            lambda heard: DemandStreams(rng, heard, port=port, failures=failures),
            self._refiner,
            metrics,
            self._quotas,
            token=token,
            growth=growth,
            clock=clock,
            failures=failures,
        )
        self.counts = PodCounts(failures)
        self._kubelets = Kubelets()
        self._memory = MemorySizer(
            self.cluster, self.divider.pods, self._kubelets, self.report, clock=clock, failures=failures
        )
        self._overviews = Overviews(self.divider, watches, metrics, board, clock, failures)
        self._keeper = keeper
        self._collector = ModelCollector(keeper, port=port, failures=failures)

    async def run(self) -> None:
        """Until cancelled. Nothing is divided before everything was listed, or the cores of unseen pods would be given away."""
        try:
            async with self._kubelets, asyncio.TaskGroup() as group:
                await self._watches.wait()
                # Thousands of pods stay for long. A garbage collection that looks at them would stop everything for 0.2 s.
                gc.freeze()
                group.create_task(self.divider.run(), name="divider")
                group.create_task(self._publish(), name="publish")
                group.create_task(self._learn(), name="learn")
                group.create_task(self._memory.run(), name="memory")
        finally:
            gc.unfreeze()
            self.divider.close()
            for task in self._recording:
                task.cancel()
            self._overviews.clear()
            await self._refiner.close()

    async def tell(self, pod: PodView, phase: Phase, cores: float, reach: float) -> bool:
        """See `pod_resizer.ResizeEffects`."""
        return await self._cores_client.tell(Address(pod.ip, self._token(pod), pod.uid), phase, cores, reach)

    def report(self, resizer: PodResizer, report: Report) -> None:
        """See `pod_resizer.ResizeEffects`."""
        self._report(resizer.pod, report.kind, report.message, _REPEAT_S)

    def patched(self, resizer: PodResizer, event: Patched) -> None:
        """See `pod_resizer.ResizeEffects`."""
        namespace = resizer.pod.key[0]
        if event.freed > 0 and self._quotas.tight(namespace, self._clock()):
            for key, other in self.divider.pods.items():
                if key != resizer.pod.key and key[0] == namespace:
                    other.resizer.handle(QuotaFreed())
        if event.waited_s is not None:
            self._metrics.patch_lag(event.waited_s)
        self._watches.pods.learn(event.answer)
        self.divider.touch(resizer.pod.node)
        _log.debug("%s/%s: patch took %.3f s", *resizer.pod.key, event.took_s)

    def refused(self, resizer: PodResizer, event: Refused) -> None:
        """See `pod_resizer.ResizeEffects`."""
        if event.kind == "quota":
            self._quotas.refused(resizer.pod.key[0], self._clock())
        if event.memory is not None:
            self._memory.refused(resizer, event.memory)

    def phase_changed(self, event: PhaseChanged) -> None:
        """See `pod_resizer.ResizeEffects`."""
        if event.applied_s is not None:
            self._metrics.applied_lag(event.applied_s)
            self._metrics.resized("done")
        elif (outcome := _OUTCOMES.get(event.phase)) is not None:
            self._metrics.resized(outcome)

    def _report(self, pod: PodView, reason: ReportKind | Literal["NoNews"], note: str, repeat_s: float) -> None:
        key = (pod.key[0], pod.revision, reason)
        now = self._clock()
        revision = self._watches.revisions.get((pod.key[0], pod.revision))
        if revision is None or now - self._reported.get(key, float("-inf")) < repeat_s:
            return
        self._reported[key] = now
        regarding = {"apiVersion": "serving.knative.dev/v1", "kind": "Revision", **revision}
        kind: Literal["Normal", "Warning"] = "Normal" if reason in ("Resized", "MemoryResized") else "Warning"
        event = Event(regarding, kind, "Resize", reason, f"Pod {pod.key[1]}: {note}")
        task = asyncio.create_task(self._recorder.record(event))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    def _touch(self, node: str) -> None:
        self.divider.touch(node)

    async def _publish(self) -> None:
        counted_s = float("-inf")
        while True:
            self._overviews.publish()
            self._metrics.broken_limits(len(self._owners.faults))
            now = self._clock()
            if now - counted_s >= PERIOD_S:
                counted_s = now
                self._report_silent_pods(now)
                await self.counts.look(self.divider.pods, self.divider.rows(), now)
            await asyncio.sleep(_PUBLISH_S)

    def _report_silent_pods(self, now: float) -> None:
        self._reported = {key: at_s for key, at_s in self._reported.items() if now - at_s < _SILENT_AGAIN_S}
        for key, pod in self.divider.pods.items():
            self._steps.run(key, partial(self._report_silence, pod, now))

    def _report_silence(self, pod: PodState, now: float) -> None:
        view, silent_s = pod.resizer.pod, pod.silent_s(now)
        if silent_s >= _SILENT_S and view.ready:
            note = f"nothing was heard from its proxy for {silent_s:.0f} s; it keeps its size"
            self._report(view, "NoNews", note, _SILENT_AGAIN_S)

    async def _learn(self) -> None:
        while True:
            await asyncio.sleep(_LEARN_S)
            await self._steps.wait_for(_ROUND, self._learn_once)

    async def _learn_once(self) -> None:
        await self._collector.collect(self._teachers())
        await self._keeper.flush(time.time())

    def _teachers(self) -> dict[str, tuple[str, str]]:
        """For each image whose latency model is worth asking for, address and token of the pod that has learned from most
        calls."""
        best: dict[str, tuple[int, str, Key]] = {}
        for name, pod in self.divider.pods.items():
            if pod.demand is not None and not self._steps.holds(name):
                view, samples = pod.resizer.pod, pod.demand.line.samples
                key = key_of(view.image, view.key[0], view.service, view.owner)
                best[key] = max(best.get(key, (0, "", ("", ""))), (samples, view.ip, view.key))
        now, found = time.time(), {}
        for key, (_, ip, name) in best.items():
            pod = self.divider.pods[name]
            demand = pod.demand if ip else None
            if demand is not None and self._steps.run(name, partial(self._keeper.lacks, key, demand.line, now)):
                found[key] = ip, self._token(pod.resizer.pod)
        return found

    def idle_s(self, revision: Key) -> float | None:
        """Seconds since the last request of any pod of a revision, 0 while one is served; None when that is not known."""
        least: float | None = None
        now = self._clock()
        for view in self.cluster.pods_of(revision):
            if view.terminating or view.phase not in ("Pending", "Running"):
                continue
            pod = self.divider.pods.get(view.key)
            demand = None if pod is None else pod.demand
            if demand is None or demand.stale(now) or demand.line.idle_s is None:
                return None
            busy = demand.line.queued or demand.line.running
            idle_s = 0.0 if busy else demand.line.idle_s + now - demand.at_s
            least = idle_s if least is None else min(least, idle_s)
        return least
