"""How all revisions stand, for the board and the metrics: gathered from those who know it; nothing is decided here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from knative_sponge.controller.annotations import SERVICE_LABEL, ours, read_settings
from knative_sponge.controller.cluster.capacity import Cluster
from knative_sponge.controller.cluster.watches import Watches
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.reporting.rows import NodeRow, PodRow, RevisionRow
from knative_sponge.controller.reporting.why import why
from knative_sponge.controller.sizing.divider import Divider
from knative_sponge.controller.sizing.pod_resizer import Hand
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import ServingSettings


class Overviews:
    """Makes the rows."""

    def __init__(
        self, cluster: Cluster, divider: Divider, watches: Watches, metrics: Metrics, clock: Callable[[], float]
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
        for key, hands in self._by_revision().items():
            if self._settings(key, hands) is None:
                continue
            shown.add(key)
            self._metrics.revision(
                *key,
                cores=sum(hand.pod.in_force or 0.0 for hand in hands),
                wanted=sum(self._want(hand) for hand in hands),
                pods=len(hands),
                pods_wanted=self._wanted_pods(key, len(hands)),
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
        found = (self._row(key, hands) for key, hands in sorted(self._by_revision().items()))
        nodes = self._divider.nodes
        return [row for row in found if row is not None], [nodes[name] for name in sorted(nodes)]

    def _by_revision(self) -> dict[Key, list[Hand]]:
        by_revision: dict[Key, list[Hand]] = defaultdict(list)
        for key, autoscaler in self._watches.autoscalers.objects.items():
            if ours(autoscaler):
                by_revision[key] = []
        for hand in self._divider.hands.values():
            by_revision[hand.pod.key[0], hand.pod.revision].append(hand)
        return by_revision

    def _row(self, key: Key, hands: list[Hand]) -> RevisionRow | None:
        namespace, name = key
        metadata = self._metadata(key)
        settings = self._settings(key, hands)
        if settings is None:
            return None
        pods = tuple(self._pod(hand) for hand in sorted(hands, key=lambda hand: hand.pod.key))
        wanted = self._wanted_pods(key, len(pods))
        return RevisionRow(
            namespace=namespace,
            name=name,
            service=hands[0].pod.service if hands else (metadata.get("labels") or {}).get(SERVICE_LABEL, ""),
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

    def _settings(self, key: Key, hands: list[Hand]) -> ServingSettings | None:
        return hands[0].pod.settings if hands else _settings(self._metadata(key).get("annotations") or {})

    def _want(self, hand: Hand) -> float:
        wish = self._divider.wishes.get(hand.pod.key)
        return hand.machine.asked if wish is None else wish.want

    def _wanted_pods(self, key: Key, present: int) -> int:
        autoscaler = self._watches.autoscalers.get(key)
        wanted: int | None = ((autoscaler or {}).get("status") or {}).get("desiredScale")
        return present if wanted is None or wanted < 0 else wanted

    def _pod(self, hand: Hand) -> PodRow:
        pod, machine = hand.pod, hand.machine
        wish = self._divider.wishes.get(pod.key)
        line = None if wish is None else wish.line
        return PodRow(
            name=pod.key[1],
            node=pod.node,
            cores=pod.in_force or 0.0,
            target=machine.target or machine.asked,
            want=self._want(hand),
            phase=machine.phase,
            pending=pod.message if pod.pending else "",
            rate=0.0 if line is None else line.rate,
            queued=0 if line is None else line.queued,
            running=0 if line is None else line.running,
            slack_s=None if line is None else line.slack,
            met=0 if line is None else line.met,
            missed=0 if line is None else line.missed,
            news_s=None if wish is None else round(max(0.0, self._clock() - wish.at_s), 3),
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
