"""The sizes of all pods, on the leader: puts the fast loop, the resizers, the proxies and the solver together. Decides
nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Callable
from typing import Final, Literal

from knative_sponge.controller.cluster.capacity import ClusterCapacity
from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.cluster.watches import Watches
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.events import Event, Recorder
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.controller.profiles.collector import ModelCollector
from knative_sponge.controller.profiles.profile import key_of
from knative_sponge.controller.profiles.store import ProfileKeeper
from knative_sponge.controller.proxies.cores_client import CoresClient
from knative_sponge.controller.proxies.demand_streams import ADMIN_PORT, Address, DemandStreams
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.metrics import Metrics, ResizeOutcome
from knative_sponge.controller.sizing.claims import STALE_S
from knative_sponge.controller.sizing.counts import PERIOD_S, PodCounts
from knative_sponge.controller.sizing.cpsat import Refiner
from knative_sponge.controller.sizing.divider import Divider
from knative_sponge.controller.sizing.kubelet import Kubelets
from knative_sponge.controller.sizing.memory import MemorySizer
from knative_sponge.controller.sizing.overview import Overviews
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.resizing.events import FailureKind, QuotaFreed, Report, ReportKind
from knative_sponge.core.resizing.machine import ResizePhase

_log: Final = logging.getLogger(__name__)

_PUBLISH_S: Final = 1.0
_LEARN_S: Final = 15.0
_SILENT_S: Final = 30.0
_SILENT_AGAIN_S: Final = 600.0
_REPEAT_S: Final = 10.0
"""A revision's events of one kind are at least so far apart: a surge resizes often, and each event is an object."""
_OUTCOMES: Final[dict[ResizePhase, ResizeOutcome]] = {
    ResizePhase.STEADY: "done",
    ResizePhase.DEFERRED: "deferred",
    ResizePhase.INFEASIBLE: "infeasible",
    ResizePhase.ERROR: "error",
}


class Sizer:
    """`run` it on the leader only, beside `Watches.run`. Satisfies `resizer.ResizeEffects`.

    port: of the proxies' admin server. clock: monotonic seconds.
    """

    def __init__(
        self,
        kube: Kube,
        watches: Watches,
        recorder: Recorder,
        metrics: Metrics,
        board: Board,
        keeper: ProfileKeeper,
        rng: random.Random,
        *,
        port: int = ADMIN_PORT,
        growth: GrowthRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kube = kube
        self._watches = watches
        self._recorder = recorder
        self._metrics = metrics
        self._board = board
        self._clock = clock
        self._teller = CoresClient(port)
        self._refiner = Refiner()
        self._reported: dict[tuple[str, str, str], float] = {}
        self._recording: set[asyncio.Task[object]] = set()
        self.cluster = ClusterCapacity(watches.pods, watches.nodes, self._touch, clock)
        self.divider = Divider(
            self.cluster,
            lambda pod: PodResizer(pod, self, clock),
            lambda heard: DemandStreams(rng, heard, port=port, clock=clock),
            self._refiner,
            metrics,
            growth=growth,
            clock=clock,
        )
        self.recount: Callable[[Key], None] = lambda _key: None
        """Told each revision that shall have another number of pods."""
        self.counts = PodCounts(self._recount)
        self._kubelets = Kubelets()
        self._memory = MemorySizer(self.cluster, self.divider.resizers, self._kubelets, self.report, clock=clock)
        self._overviews = Overviews(self.cluster, self.divider, watches, metrics, clock)
        self._keeper = keeper
        self._collector = ModelCollector(keeper, port=port)

    async def run(self) -> None:
        """Until cancelled. Nothing is divided before everything was listed: cores of pods unseen would be given away."""
        try:
            async with self._kubelets, asyncio.TaskGroup() as group:
                await self._watches.wait()
                # Thousands of pods stay for long. Each look of the garbage collector at them would stop everything for 0.2 s.
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
            self._board.clear()
            await self._refiner.close()

    async def tell(self, pod: PodView, phase: str, cores: float, reach: float) -> bool:
        """See `resizer.ResizeEffects`."""
        return await self._teller.tell(Address(pod.ip, pod.token, pod.uid), phase, cores, reach)

    def patched(self, resizer: PodResizer, cores: float, answer: Object) -> None:
        """See `resizer.ResizeEffects`."""
        now = self._clock()
        namespace = resizer.pod.key[0]
        if cores < resizer.machine.asked and self.divider.quotas.tight(namespace, now):
            for other in self.divider.resizers.values():
                if other is not resizer and other.pod.key[0] == namespace:
                    other.handle(QuotaFreed())
        if resizer.wanted_s is not None:
            assert resizer.patched_s is not None
            self._metrics.patch_lag(resizer.patched_s - resizer.wanted_s)
            resizer.wanted_s = None
        self._watches.pods.learn(answer)
        self.divider.touch(resizer.pod.node)
        _log.debug("%s/%s: patch took %.3f s", *resizer.pod.key, now - (resizer.patched_s or now))

    def refused(self, resizer: PodResizer, kind: FailureKind) -> None:
        """See `resizer.ResizeEffects`."""
        if kind == "quota":
            self.divider.quotas.refused(resizer.pod.key[0], self._clock())

    def moved(self, resizer: PodResizer, before: ResizePhase) -> None:
        """See `resizer.ResizeEffects`."""
        phase = resizer.machine.phase
        if (
            phase is ResizePhase.STEADY
            and before in (ResizePhase.PATCHED, ResizePhase.IN_PROGRESS)
            and resizer.patched_s is not None
        ):
            self._metrics.applied_lag(self._clock() - resizer.patched_s)
            resizer.patched_s = None
        elif phase in (ResizePhase.STEADY, ResizePhase.PATCHED):
            return
        if (outcome := _OUTCOMES.get(phase)) is not None:
            self._metrics.resized(outcome)

    def report(self, resizer: PodResizer, report: Report) -> None:
        """See `resizer.ResizeEffects`."""
        note = f"{report.message}: {resizer.why}" if report.kind == "Resized" and resizer.why else report.message
        self._report(resizer.pod, report.kind, note, _REPEAT_S)

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

    def _recount(self, revision: Key) -> None:
        self.recount(revision)

    def _touch(self, node: str) -> None:
        self.divider.touch(node)

    async def _publish(self) -> None:
        counted_s = float("-inf")
        while True:
            self._overviews.publish(self._board)
            now = self._clock()
            if now - counted_s >= PERIOD_S:
                counted_s = now
                self._look_for_silence(now)
                await self.counts.look(self.divider.resizers, self.divider.demands, self.divider.nodes, now)
            await asyncio.sleep(_PUBLISH_S)

    def _look_for_silence(self, now: float) -> None:
        self._reported = {key: at_s for key, at_s in self._reported.items() if now - at_s < _SILENT_AGAIN_S}
        for resizer in self.divider.resizers.values():
            demand = self.divider.demands.get(resizer.pod.key)
            heard_s = resizer.since_s if demand is None else demand.at_s
            if now - heard_s >= _SILENT_S and resizer.pod.ready:
                note = f"nothing was heard from its proxy for {now - heard_s:.0f} s; it keeps its size"
                self._report(resizer.pod, "NoNews", note, _SILENT_AGAIN_S)

    async def _learn(self) -> None:
        while True:
            await asyncio.sleep(_LEARN_S)
            await self._collector.collect(self._teachers())
            await self._keeper.flush(time.time())

    def _teachers(self) -> dict[str, str]:
        """Of each image whose model is worth asking for, the address of the pod whose model rests on the most measurements."""
        best: dict[str, tuple[int, str, Key]] = {}
        for resizer in self.divider.resizers.values():
            demand = self.divider.demands.get(resizer.pod.key)
            if demand is not None:
                key = key_of(resizer.pod.image, resizer.pod.key[0], resizer.pod.service)
                best[key] = max(
                    best.get(key, (0, "", ("", ""))), (demand.line.samples, resizer.pod.ip, resizer.pod.key)
                )
        demands, now = self.divider.demands, time.time()
        return {key: ip for key, (_, ip, pod) in best.items() if ip and self._keeper.lacks(key, demands[pod].line, now)}

    def idle_s(self, revision: Key) -> float | None:
        """Seconds since the last request of any pod of a revision, 0 while one is served; None when that is not known."""
        least: float | None = None
        now = self._clock()
        for pod in self.cluster.pods_of(revision):
            if pod.terminating or pod.phase not in ("Pending", "Running"):
                continue
            demand = self.divider.demands.get(pod.key)
            if demand is None or now - demand.at_s > STALE_S or demand.line.idle_s is None:
                return None
            busy = demand.line.queued or demand.line.running
            idle_s = 0.0 if busy else demand.line.idle_s + now - demand.at_s
            least = idle_s if least is None else min(least, idle_s)
        return least
