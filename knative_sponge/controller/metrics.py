"""Prometheus metrics of the controller: one registry per process, bounded label sets, names `sponge_*`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

Outcome = Literal["ok", "conflict", "error"]

MISSED: Final = "webhook-missed"
"""The pod was created while the webhook was not called."""
KEPT: Final = "kept"
"""The webhook left it the stock proxy, and wrote on the pod why."""


class Metrics:
    """Counts of one controller process."""

    def __init__(self) -> None:
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

    def reconciled(self, outcome: Outcome) -> None:
        """One PodAutoscaler was looked at."""
        self._reconciles[outcome].inc()

    def leads(self, yes: bool) -> None:
        """This replica became leader, or stopped being it; what only the leader knows is then nobody's."""
        self._leader.set(yes)
        if not yes:
            self.stock_proxies({})
            self.broken_webhooks(0)

    def stock_proxies(self, pods: Mapping[str, int]) -> None:
        """Pods per why; reasons that are left out are zero."""
        for why, gauge in self._stock.items():
            gauge.set(pods.get(why, 0))

    def broken_webhooks(self, count: int) -> None:
        """Webhook configurations that do not work."""
        self._webhooks.set(count)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
