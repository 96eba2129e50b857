"""Prometheus metrics of the controller: one registry per process, bounded label sets, names `sponge_*`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Outcome = Literal["ok", "conflict", "error"]

ResizeOutcome = Literal["done", "deferred", "infeasible", "error", "refused"]
"""How a resize went: in force; deferred by the kubelet; more than the node has; failed there; refused by the API server."""

MISSED: Final = "webhook-missed"
"""The pod was created while the webhook was not called."""
KEPT: Final = "kept"
"""The webhook left the pod its stock proxy, and wrote on it why."""

_LAGS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DIVIDES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """The metrics of one controller process. A revision or node is a label from when it is set until it is forgotten."""

    def __init__(self) -> None:
        self._measure: Callable[[], None] | None = None
        self.registry = CollectorRegistry()
        reconciles = Counter(
            "sponge_reconciles", "Looks at one PodAutoscaler, by outcome.", ["outcome"], registry=self.registry
        )
        self._reconciles = {outcome: reconciles.labels(outcome) for outcome in ("ok", "conflict", "error")}
        self._leader = Gauge("sponge_leader", "1 on the replica that leads.", registry=self.registry)
        stock = Gauge(
            "sponge_pods_with_stock_proxy",
            "Pods that ask for deadlines but run Knative's own queue-proxy, by why.",
            ["why"],
            registry=self.registry,
        )
        self._stock = {why: stock.labels(why) for why in (MISSED, KEPT)}
        self._webhooks = Gauge(
            "sponge_webhook_configurations_broken",
            "Webhook configurations that are missing or trust nobody, so that nothing calls the webhook.",
            registry=self.registry,
        )
        self._errors = Counter(
            "sponge_controller_errors",
            "Steps for one object that failed, by the loop that took them. The log says which object, and why.",
            ["loop"],
            registry=self.registry,
        )
        self._limits = Gauge(
            "sponge_limits_broken",
            "Entries of the ConfigMap knative-sponge-limits that cannot be read.",
            registry=self.registry,
        )
        self._revision = self._gauges(
            ["namespace", "revision"],
            sponge_revision_cores="Cores in force, of all pods.",
            sponge_revision_cores_wanted="Cores that the pods ask for.",
            sponge_revision_pods="Pods there are.",
            sponge_revision_pods_wanted="Pods there shall be.",
        )
        self._node = self._gauges(
            ["node"],
            sponge_node_cores_allocatable="Cores that Kubernetes gives out.",
            sponge_node_cores_reserved="Cores that others' containers request.",
            sponge_node_cores_divided="Cores that our pods were given.",
            sponge_node_short="1 while our pods ask for more cores than there are to divide.",
        )
        resizes = Counter("sponge_resizes", "Resizes of pods, by outcome.", ["outcome"], registry=self.registry)
        self._resizes = {outcome: resizes.labels(outcome) for outcome in get_args(ResizeOutcome)}
        self._patch_lag, self._applied_lag, self._divide = (
            Histogram(name, text, buckets=buckets, registry=self.registry)
            for name, text, buckets in (
                ("sponge_resize_patch_seconds", "From a change of demand to the patch that was sent.", _LAGS),
                ("sponge_resize_applied_seconds", "From sending a patch to the status that shows it.", _LAGS),
                ("sponge_divide_seconds", "Time of one division of a node's cores.", _DIVIDES),
            )
        )
        streams = Gauge(
            "sponge_demand_streams",
            "Pods by how well they are heard: live (within 3 s), stale (once, but not lately), down (never).",
            ["state"],
            registry=self.registry,
        )
        self._streams = {state: streams.labels(state) for state in ("live", "stale", "down")}

    def failed(self, loop: str) -> None:
        """A step of this loop for one object has failed."""
        self._errors.labels(loop).inc()

    def broken_limits(self, count: int) -> None:
        """Set the number of namespaces whose limits cannot be read."""
        self._limits.set(count)

    def reconciled(self, outcome: Outcome) -> None:
        """One PodAutoscaler was reconciled."""
        self._reconciles[outcome].inc()

    def leads(self, yes: bool) -> None:
        """This replica became leader, or leads no more. Then it forgets the metrics that only the leader knows."""
        self._leader.set(yes)
        if not yes:
            self._measure = None
            self.stock_proxies({})
            self.broken_webhooks(0)
            self.broken_limits(0)
            self.streams(live=0, stale=0, down=0)
            for gauge in (*self._revision, *self._node):
                gauge.clear()

    def publish(self, measure: Callable[[], None]) -> None:
        """Call `measure` before anything is shown, until `leads(False)`: it sets what would cost too much to set with each
        change."""
        self._measure = measure

    def stock_proxies(self, pods: Mapping[str, int]) -> None:
        """Set the pods with the stock proxy, by reason. A reason that is left out is set to 0."""
        for why, gauge in self._stock.items():
            gauge.set(pods.get(why, 0))

    def broken_webhooks(self, count: int) -> None:
        """Set the number of webhook configurations that do not work."""
        self._webhooks.set(count)

    def revision(self, namespace: str, name: str, *, cores: float, wanted: float, pods: int, pods_wanted: int) -> None:
        """Set the figures of one revision of our class."""
        for gauge, value in zip(self._revision, (cores, wanted, pods, pods_wanted), strict=True):
            gauge.labels(namespace, name).set(value)

    def forget_revision(self, namespace: str, name: str) -> None:
        """The revision is gone, or not of our class any more."""
        for gauge in self._revision:
            gauge.remove(namespace, name)

    def node(self, name: str, *, allocatable: float, reserved: float, divided: float, short: bool) -> None:
        """Set the figures of one node with managed pods."""
        for gauge, value in zip(self._node, (allocatable, reserved, divided, short), strict=True):
            gauge.labels(name).set(value)

    def forget_node(self, name: str) -> None:
        """The node is gone, or has no managed pods any more."""
        for gauge in self._node:
            gauge.remove(name)

    def resized(self, outcome: ResizeOutcome) -> None:
        """One resize ended."""
        self._resizes[outcome].inc()

    def patch_lag(self, seconds: float) -> None:
        """Seconds from a change of demand until the patch was sent."""
        self._patch_lag.observe(seconds)

    def applied_lag(self, seconds: float) -> None:
        """Seconds from sending a patch until the pod's status showed the size."""
        self._applied_lag.observe(seconds)

    def streams(self, *, live: int, stale: int, down: int) -> None:
        """Set how many pods' demand streams are in each state."""
        for gauge, value in zip(self._streams.values(), (live, stale, down), strict=True):
            gauge.set(value)

    def divided(self, seconds: float) -> None:
        """Seconds that one division of a node's cores took."""
        self._divide.observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        if self._measure is not None:
            self._measure()
        return generate_latest(self.registry)

    def _gauges(self, labels: list[str], **texts: str) -> tuple[Gauge, ...]:
        return tuple(Gauge(name, text, labels, registry=self.registry) for name, text in texts.items())
