"""How all revisions stand, for the board and the metrics: gathered from those who know it; nothing is decided here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from knative_sponge.controller.annotations import SERVICE_LABEL, has_our_class, read_settings
from knative_sponge.controller.cluster.capacity import ClusterCapacity
from knative_sponge.controller.cluster.watches import Watches
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.reporting.rows import NodeRow, PodRow, RevisionRow
from knative_sponge.controller.reporting.why import why
from knative_sponge.controller.sizing.divider import Divider
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import ServingSettings


class Overviews:
    """Makes the rows."""

    def __init__(
        self, cluster: ClusterCapacity, divider: Divider, watches: Watches, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._cluster = cluster
        self._divider = divider
        self._watches = watches
        self._metrics = metrics
        self._clock = clock
        self._shown: set[Key] = set()
        self._shown_nodes: set[str] = set()

    def publish(self, board: Board) -> None:
        """Let the board and the metrics show everything; whoever asks them pays for it."""
        board.publish(self.rows)
        self._metrics.look = self._measure

    def _measure(self) -> None:
        """Put the sums into the metrics."""
        shown: set[Key] = set()
        for key, resizers in self._by_revision().items():
            if self._settings(key, resizers) is None:
                continue
            shown.add(key)
            self._metrics.revision(
                *key,
                cores=sum(resizer.pod.in_force or 0.0 for resizer in resizers),
                wanted=sum(self._want(resizer) for resizer in resizers),
                pods=len(resizers),
                pods_wanted=self._wanted_pods(key, len(resizers)),
            )
        for key in self._shown - shown:
            self._metrics.forget_revision(*key)
        self._shown = shown
        nodes = self._divider.nodes
        for name, row in nodes.items():
            self._metrics.node(
                name, allocatable=row.allocatable, reserved=row.reserved, divided=row.divided, short=row.short
            )
        for name in self._shown_nodes - nodes.keys():
            self._metrics.forget_node(name)
        self._shown_nodes = set(nodes)
        live, silent = self._divider.streams.counts()
        self._metrics.streams(live=live, stale=0, down=silent)

    def rows(self) -> tuple[list[RevisionRow], list[NodeRow]]:
        """Everything as it is now, by name; revisions whose annotations cannot be read are left out."""
        found = (self._row(key, resizers) for key, resizers in sorted(self._by_revision().items()))
        nodes = self._divider.nodes
        return [row for row in found if row is not None], [nodes[name] for name in sorted(nodes)]

    def _by_revision(self) -> dict[Key, list[PodResizer]]:
        by_revision: dict[Key, list[PodResizer]] = defaultdict(list)
        for key, autoscaler in self._watches.autoscalers.objects.items():
            if has_our_class(autoscaler):
                by_revision[key] = []
        for resizer in self._divider.resizers.values():
            by_revision[resizer.pod.key[0], resizer.pod.revision].append(resizer)
        return by_revision

    def _row(self, key: Key, resizers: list[PodResizer]) -> RevisionRow | None:
        namespace, name = key
        metadata = self._metadata(key)
        settings = self._settings(key, resizers)
        if settings is None:
            return None
        pods = tuple(self._pod(resizer) for resizer in sorted(resizers, key=lambda resizer: resizer.pod.key))
        wanted = self._wanted_pods(key, len(pods))
        return RevisionRow(
            namespace=namespace,
            name=name,
            service=resizers[0].pod.service if resizers else (metadata.get("labels") or {}).get(SERVICE_LABEL, ""),
            slo_s=settings.slo_s,
            priority=settings.priority,
            scaling=settings.scaling,
            max_batch=settings.max_batch,
            max_inflight=settings.max_inflight,
            min_cores=settings.min_cores,
            max_cores=settings.max_cores,
            wanted_pods=wanted,
            why=why(pods, wanted, self._divider.nodes.get),
            pods=pods,
        )

    def _metadata(self, key: Key) -> Object:
        return (self._watches.autoscalers.get(key) or {}).get("metadata") or {}

    def _settings(self, key: Key, resizers: list[PodResizer]) -> ServingSettings | None:
        return resizers[0].pod.settings if resizers else _settings(self._metadata(key).get("annotations") or {})

    def _want(self, resizer: PodResizer) -> float:
        demand = self._divider.demands.get(resizer.pod.key)
        return resizer.machine.asked if demand is None else demand.want

    def _wanted_pods(self, key: Key, present: int) -> int:
        autoscaler = self._watches.autoscalers.get(key)
        wanted: int | None = ((autoscaler or {}).get("status") or {}).get("desiredScale")
        return present if wanted is None or wanted < 0 else wanted

    def _pod(self, resizer: PodResizer) -> PodRow:
        pod, machine = resizer.pod, resizer.machine
        demand = self._divider.demands.get(pod.key)
        line = None if demand is None else demand.line
        return PodRow(
            name=pod.key[1],
            node=pod.node,
            cores=pod.in_force or 0.0,
            target=machine.target or machine.asked,
            want=self._want(resizer),
            phase=machine.phase,
            pending=pod.message if pod.pending else "",
            rate=0.0 if line is None else line.rate,
            queued=0 if line is None else line.queued,
            running=0 if line is None else line.running,
            slack_s=None if line is None else line.slack,
            met=0 if line is None else line.met,
            missed=0 if line is None else line.missed,
            news_s=None if demand is None else round(max(0.0, self._clock() - demand.at_s), 3),
            curve=() if line is None else line.curve,
            params=None if line is None else line.params,
            cost=None if line is None else line.cost,
            samples=0 if line is None else line.samples,
        )


def _settings(annotations: dict[str, str]) -> ServingSettings | None:
    try:
        return read_settings(annotations)
    except SettingError:
        return None
