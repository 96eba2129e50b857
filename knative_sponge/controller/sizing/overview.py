"""How all revisions, pods and nodes stand, for the board and the metrics. Gathered from the divider and the watches; decides
nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from knative_sponge.controller.annotations import SERVICE_LABEL, has_our_class, read_settings
from knative_sponge.controller.cluster.watches import Watches
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.reporting.rows import NodeRow, PodRow, RevisionRow
from knative_sponge.controller.reporting.why import why
from knative_sponge.controller.sizing.divider import Divider
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import ServingSettings


class Overviews:
    """Makes the rows and the sums. clock: monotonic seconds."""

    def __init__(
        self,
        divider: Divider,
        watches: Watches,
        metrics: Metrics,
        board: Board,
        clock: Callable[[], float],
        failures: Failures | None = None,
    ) -> None:
        failures = failures or Failures()
        self._row_steps, self._metric_steps = failures.of("overview"), failures.of("metrics")
        self._divider = divider
        self._watches = watches
        self._metrics = metrics
        self._board = board
        self._clock = clock
        self._shown: set[Key] = set()
        self._shown_nodes: set[str] = set()

    def publish(self) -> None:
        """Let the board and the metrics show everything. It is gathered each time that somebody asks them."""
        self._board.publish(self.rows)
        self._metrics.publish(self._measure)

    def clear(self) -> None:
        """Let the board show nothing any more. The metrics show nothing once this replica leads no more."""
        self._board.clear()

    def _measure(self) -> None:
        """Put the sums into the metrics."""
        shown = {
            key
            for key, pods in self._by_revision().items()
            if self._metric_steps.run(key, partial(self._measure_revision, key, pods))
        }
        for key in self._shown - shown:
            self._metrics.forget_revision(*key)
        self._shown = shown
        nodes = self._divider.rows()
        for name, row in nodes.items():
            self._metrics.node(
                name, allocatable=row.allocatable, reserved=row.reserved, divided=row.divided, short=row.short
            )
        for name in self._shown_nodes - nodes.keys():
            self._metrics.forget_node(name)
        self._shown_nodes = set(nodes)
        now = self._clock()
        streams = Counter(_stream(pod, now) for pod in self._divider.pods.values())
        self._metrics.streams(live=streams["live"], stale=streams["stale"], down=streams["down"])

    def _measure_revision(self, key: Key, pods: list[PodState]) -> bool:
        """Returns whether the revision is shown."""
        if self._settings(key, pods) is None:
            return False
        self._metrics.revision(
            *key,
            cores=sum(pod.resizer.pod.in_force or 0.0 for pod in pods),
            wanted=sum(map(_wanted, pods)),
            pods=len(pods),
            pods_wanted=self._wanted_pods(key, len(pods)),
        )
        return True

    def rows(self) -> tuple[list[RevisionRow], list[NodeRow]]:
        """Everything as it is now, by name. Revisions that cannot be read are left out."""
        nodes = self._divider.rows()
        by_revision = self._by_revision()
        found = [
            self._row_steps.run(key, partial(self._row, key, by_revision[key], nodes)) for key in sorted(by_revision)
        ]
        return [row for row in found if row is not None], [nodes[name] for name in sorted(nodes)]

    def _by_revision(self) -> dict[Key, list[PodState]]:
        by_revision: dict[Key, list[PodState]] = defaultdict(list)
        for key, autoscaler in self._watches.autoscalers.objects.items():
            if self._row_steps.run(key, partial(has_our_class, autoscaler)):
                by_revision[key] = []
        for pod in self._divider.pods.values():
            view = pod.resizer.pod
            by_revision[view.key[0], view.revision].append(pod)
        return by_revision

    def _row(self, key: Key, pods: list[PodState], nodes: Mapping[str, NodeRow]) -> RevisionRow | None:
        namespace, name = key
        metadata = self._metadata(key)
        settings = self._settings(key, pods)
        if settings is None:
            return None
        rows = tuple(self._pod(pod) for pod in sorted(pods, key=lambda pod: pod.resizer.pod.key))
        wanted = self._wanted_pods(key, len(rows))
        return RevisionRow(
            namespace=namespace,
            name=name,
            service=pods[0].resizer.pod.service if pods else (metadata.get("labels") or {}).get(SERVICE_LABEL, ""),
            slo_s=settings.slo_s,
            priority=settings.priority,
            scaling=settings.scaling,
            max_batch=settings.max_batch,
            max_inflight=settings.max_inflight,
            min_cores=settings.min_cores,
            max_cores=settings.max_cores,
            wanted_pods=wanted,
            why=why(rows, wanted, nodes.get),
            pods=rows,
        )

    def _metadata(self, key: Key) -> Object:
        return (self._watches.autoscalers.get(key) or {}).get("metadata") or {}

    def _settings(self, key: Key, pods: list[PodState]) -> ServingSettings | None:
        return pods[0].resizer.pod.settings if pods else _settings(self._metadata(key).get("annotations") or {})

    def _wanted_pods(self, key: Key, present: int) -> int:
        autoscaler = self._watches.autoscalers.get(key)
        wanted: int | None = ((autoscaler or {}).get("status") or {}).get("desiredScale")
        return present if wanted is None or wanted < 0 else wanted

    def _pod(self, state: PodState) -> PodRow:
        pod, machine, demand = state.resizer.pod, state.resizer.machine, state.demand
        line = None if demand is None else demand.line
        return PodRow(
            name=pod.key[1],
            node=pod.node,
            cores=pod.in_force or 0.0,
            target=machine.target or machine.asked,
            want=_wanted(state),
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


def _wanted(pod: PodState) -> float:
    """Cores that the pod wants or wanted of late; without a word from its proxy, the size that it was given."""
    return pod.resizer.machine.asked if pod.demand is None else pod.demand.peak


def _stream(pod: PodState, now: float) -> Literal["live", "stale", "down"]:
    """How well the pod is heard: now; once but not lately; never."""
    if pod.demand is None:
        return "down"
    return "stale" if pod.demand.stale(now) else "live"


def _settings(annotations: dict[str, str]) -> ServingSettings | None:
    try:
        return read_settings(annotations)
    except SettingError:
        return None
