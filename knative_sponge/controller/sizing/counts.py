"""The slow loop of `hybrid` revisions: how many pods each shall have (design §4, Two time scales). It writes nothing.

A count is known once a pod of the revision was heard and its model has learned something; it is kept while nobody speaks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.claims import STALE_S, PodDemand
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.core.allocation.fleet import cheapest_fleet
from knative_sponge.core.allocation.pod_count import PodCount
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.settings.serving import Scaling

_log: Final = logging.getLogger(__name__)

PERIOD_S: Final = 2.0
"""Between two looks; what they see has to last before a count follows (`core/allocation/pod_count.py`)."""
_SPARE: Final = 1.2
_CAUTION: Final = 1.5
"""From the median to what batches are sized with, where the spread is not known: e^{2σ} for a σ of 0.2."""
_FEWEST: Final = 5
"""Measurements below which a model is a guess still."""
_LACKING: Final = 0.1
"""Share of its want that a pod must lack before its node counts as too small for it."""


class PodCounts:
    """Counts by revision. changed: told each revision whose count is another."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._counts: dict[Key, PodCount] = {}

    def wanted(self, key: Key) -> int | None:
        """Pods that a revision shall have; None where only its annotations count."""
        count = self._counts.get(key)
        return None if count is None else count.pods

    async def look(
        self,
        resizers: Mapping[Key, PodResizer],
        demands: Mapping[Key, PodDemand],
        nodes: Mapping[str, NodeRow],
        now: float,
    ) -> None:
        """Look at all pods; each revision takes up to some milliseconds, and others have their turn in
        between. now: monotonic seconds."""
        by_revision: dict[Key, list[PodResizer]] = defaultdict(list)
        for resizer in resizers.values():
            if resizer.pod.settings is not None and resizer.pod.settings.scaling is Scaling.HYBRID:
                by_revision[resizer.pod.key[0], resizer.pod.revision].append(resizer)
        for key in [key for key in self._counts if key not in by_revision]:
            del self._counts[key]
        for key, members in by_revision.items():
            heard = [demands[resizer.pod.key] for resizer in members if resizer.pod.key in demands]
            if len(heard) == len(members) and all(now - demand.at_s <= STALE_S for demand in heard):
                self._decide(key, members, heard, nodes, now)
                await asyncio.sleep(0)

    def _decide(
        self, key: Key, members: list[PodResizer], heard: list[PodDemand], nodes: Mapping[str, NodeRow], now: float
    ) -> None:
        settings = members[0].pod.settings
        wisest = max(heard, key=lambda demand: demand.line.samples).line
        slacks = [demand.line.slack for demand in heard if demand.line.slack is not None and demand.line.slack > 0]
        rate = sum(demand.line.rate for demand in heard)
        if settings is None or wisest.params is None or wisest.samples < _FEWEST or not slacks:
            return
        most_cores = settings.max_cores
        if most_cores is None:
            most_cores = max((nodes[h.pod.node].capacity for h in members if h.pod.node in nodes), default=0.0)
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
            demand.want > (resizer.machine.target or demand.want) * (1 + _LACKING) and nodes[resizer.pod.node].short
            for resizer, demand in zip(members, heard, strict=True)
            if resizer.pod.node in nodes
        )
        before = count.pods
        try:
            fewest = needed(rate)
            most = needed(_SPARE * rate) if fewest < before else fewest  # only for fewer pods it matters
        except (ValueError, ArithmeticError) as error:
            _log.debug("%s/%s: no number of pods: %s", *key, error)  # what its proxy says of its model cannot be
            return
        # Pods that were asked for and are not there may never be: no room, or a bound of the user's. A count that went on
        # without them would take minutes to come back, and so would one far below what the user keeps.
        short = short and len(members) >= before
        most = max(most, before) if len(members) > before else most
        if count.update(fewest, most, short, now) != before:
            self._changed(key)
