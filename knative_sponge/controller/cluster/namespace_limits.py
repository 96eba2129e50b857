"""The administrator's limits as one replica knows them: followed for as long as the process runs; it decides nothing.

The leader bounds by them what pods are given, and the webhook of every replica what they start with. Nobody waits for them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from knative_sponge.controller.cluster.limits import Limits, LimitTable
from knative_sponge.controller.kube.informer import Changed, Informer
from knative_sponge.controller.kube.resource import Object

PATIENCE_S: Final = 60.0
"""A replica that has not read the limits for so long is ready without: pods that start small serve better than none, and
better than with Knative's own proxy."""

_log: Final = logging.getLogger(__name__)


class NamespaceLimits:
    """Answers from the informer of the ConfigMap, which the caller runs.

    While the API server cannot be reached, the limits that were read last hold on. clock: monotonic seconds.
    """

    def __init__(self, config: Informer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._since_s = clock()
        self._table = LimitTable()
        self._subscribers: list[Callable[[], None]] = []
        config.subscribe(self._changed)
        self._take()

    @property
    def ready(self) -> bool:
        """May pods be admitted here? The limits are known, or were not to be had for PATIENCE_S."""
        return self._config.synced.is_set() or self._clock() - self._since_s >= PATIENCE_S

    @property
    def faults(self) -> Mapping[str, str]:
        """What is wrong with entries that cannot be read."""
        return self._table.faults

    def of(self, namespace: str) -> Limits:
        """The bounds of a namespace, as far as they are known."""
        return self._table.of(namespace)

    def known_of(self, namespace: str) -> Limits | None:
        """The bounds of a namespace; None before the ConfigMap, or that there is none, was read for the first time."""
        return self._table.of(namespace) if self._config.synced.is_set() else None

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` whenever a bound is another. Returns what ends that."""
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

    def _changed(self, _changed: Changed[Object]) -> None:
        if self._take():
            for changed in list(self._subscribers):
                changed()

    def _take(self) -> bool:
        """Has a bound changed?"""
        before = dict(self._table.faults)
        data: Mapping[str, str] = {}
        for config in self._config.objects.values():
            data = config.get("data") or {}
        changed = self._table.take(data)
        for key, fault in self._table.faults.items():
            if before.get(key) != fault:
                _log.warning("limits of %s: %s; what held before holds on", key[:200], fault)
        return changed
