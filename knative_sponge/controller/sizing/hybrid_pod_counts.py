"""The slow loop of `hybrid` revisions: how many pods each shall have (docs/design.md §4.10). It writes nothing.

A revision has a count once all its pods were heard and a latency model was learned from some calls. The count stays as it is
while a pod is silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.claims import PodDemand
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.core.allocation.fleet import cheapest_fleet
from knative_sponge.core.allocation.pod_count import PodCount
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.settings.serving import Scaling

_log: Final = logging.getLogger(__name__)

PERIOD_S: Final = 2.0
"""Between two looks. What they see has to last before a count follows it (`core/allocation/pod_count.py`)."""
_SPARE: Final = 1.2
"""Pods are taken away only if the others could carry so many times the rate."""
_CAUTION: Final = 1.5
"""Batches are sized with so many times the median latency, where its spread is not known: e^{2σ} for a σ of 0.2."""
_FEWEST: Final = 5
"""A latency model that was learned from fewer calls is a guess."""
_LACKING: Final = 0.1
"""A pod's node is too small for it where its peak is above its target by more than this share."""


class PodCounts:
    """Counts by revision."""

    def __init__(self, failures: Failures | None = None) -> None:
        self._steps = (failures or Failures()).of("pod counts")
        self._subscribers: list[Callable[[Key], None]] = []
        self._counts: dict[Key, PodCount] = {}

    def subscribe(self, subscriber: Callable[[Key], None]) -> None:
        """Tell each revision whose count has changed."""
        self._subscribers.append(subscriber)

    def wanted(self, key: Key) -> int | None:
        """Pods that a revision shall have; None where that follows from its annotations alone."""
        count = self._counts.get(key)
        return None if count is None else count.pods

    async def look(self, pods: Mapping[Key, PodState], nodes: Mapping[str, NodeRow], now: float) -> None:
        """Look at all pods. now: monotonic seconds.

        A revision takes a tenth of a millisecond, whatever its settings; other tasks run after each.
        """
        by_revision: dict[Key, list[PodState]] = defaultdict(list)
        for pod in pods.values():
            view = pod.resizer.pod
            if view.settings is not None and view.settings.scaling is Scaling.HYBRID:
                by_revision[view.key[0], view.revision].append(pod)
        for key in [key for key in self._counts if key not in by_revision]:
            del self._counts[key]
        for key, members in by_revision.items():
            demands = [pod.demand for pod in members if pod.demand is not None and not pod.demand.stale(now)]
            if len(demands) == len(members):
                resizers = [pod.resizer for pod in members]
                self._steps.run(key, partial(self._decide, key, resizers, demands, nodes, now))
                await asyncio.sleep(0)

    def _decide(
        self, key: Key, members: list[PodResizer], demands: list[PodDemand], nodes: Mapping[str, NodeRow], now: float
    ) -> None:
        """members, demands: of each pod of the revision."""
        settings = members[0].pod.settings
        lines = [demand.line for demand in demands]
        wisest = max(lines, key=lambda line: line.samples)
        slacks = [line.slack for line in lines if line.slack is not None and line.slack > 0]
        rate = sum(line.rate for line in lines)
        if settings is None or wisest.params is None or wisest.samples < _FEWEST or not slacks:
            return
        most_cores = settings.max_cores
        if most_cores is None:
            most_cores = max(
                (nodes[name].capacity for name in {each.pod.node for each in members} & nodes.keys()), default=0.0
            )
        most_cores = max(most_cores, settings.min_cores)

        def needed(load: float) -> int:
            shape = cheapest_fleet(
                LatencyParams(*(wisest.cost or wisest.params)),  # type: ignore[misc]
                load,
                min(slacks),
                max_rows=settings.max_batch,
                min_cores=settings.min_cores,
                max_cores=most_cores,
                overhead_cores=members[0].pod.others,
                caution=_CAUTION,
            )
            return shape.pods

        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = PodCount(len(members))
        short = any(
            demand.peak > (resizer.machine.target or demand.peak) * (1 + _LACKING) and nodes[resizer.pod.node].short
            for resizer, demand in zip(members, demands, strict=True)
            if resizer.pod.node in nodes
        )
        before = count.pods
        try:
            fewest = needed(rate)
            most = needed(_SPARE * rate) if fewest < before else fewest  # it matters only where pods go
        except (ValueError, ArithmeticError) as error:
            _log.debug("%s/%s: no number of pods: %s", *key, error)  # its proxy says of its model what cannot be
            return
        # Pods that were asked for and are not there may never come: there is no room, or the user has set a bound. A count
        # that grew without them would take minutes to fall again. A count far below what the user keeps would take minutes
        # to grow.
        short = short and len(members) >= before
        most = max(most, before) if len(members) > before else most
        if count.update(fewest, most, short, now) != before:
            for subscriber in self._subscribers:
                subscriber(key)
