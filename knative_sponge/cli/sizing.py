"""Floor, throughput and latency of a pod at any size, by the core's own functions. It computes and prints nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from knative_sponge.controller.reporting.rows import PodRow, RevisionRow
from knative_sponge.core.demand.estimator import CoresRules
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.throughput import max_throughput, sustainable_cores

_LEAST_CORES = 0.001


class AtSize(NamedTuple):
    """A pod at one size.

    missed: rows per second expected to be missed; None without a curve. served: most rows per second. one_s: latency of a
    batch of one row. batch: rows of the largest batch within the slack; 0 when even one row takes too long. The last three are
    None without a latency model.
    """

    cores: float
    missed: float | None
    served: float | None
    one_s: float | None
    batch: int | None


@dataclass(frozen=True, slots=True)
class Sizing:
    """One pod, and the settings that it is planned with."""

    pod: PodRow
    revision: RevisionRow

    @property
    def params(self) -> LatencyParams | None:
        """The latency curve in the pod's demand; None where the demand has none."""
        return None if self.pod.params is None else LatencyParams(*self.pod.params)

    @property
    def cost(self) -> LatencyParams | None:
        """The cost curve of batches (`core/latency/quota_credit.py`); the latency curve where the demand has no other."""
        return self.params if self.pod.cost is None else LatencyParams(*self.pod.cost)

    def floor(self) -> tuple[float | None, bool]:
        """The least cores that keep up with the arriving rows, and whether they serve even the most urgent in time.

        None in place of the cores when no number of them keeps up. `DemandEstimator` computes it alike. Raises ValueError
        without a latency model.
        """
        cost = self.cost
        if cost is None:
            raise ValueError("the pod told no latency model")
        slots, slack_s = self.revision.max_inflight, self.pod.slack_s or math.inf
        each, urgent = sustainable_cores(
            cost, self.pod.rate / slots, self.revision.max_batch, slack_s, headroom_share()
        )
        return None if each is None else each * slots, urgent

    def at(self, cores: float) -> AtSize:
        """The pod at this size."""
        missed, params, cost = self.pod.misses(cores), self.params, self.cost
        if params is None or cost is None:
            return AtSize(cores, missed, None, None, None)
        slots, most, slack_s = self.revision.max_inflight, self.revision.max_batch, self.pod.slack_s
        each = cores / slots
        fitting = sum(params.latency_s(rows, each) <= (slack_s or math.inf) for rows in range(1, most + 1))
        return AtSize(cores, missed, slots * max_throughput(cost, each, most), params.latency_s(1, each), fitting)

    def sizes(self) -> dict[float, str]:
        """The sizes to show, ascending, each with its names: half, now, target, want, double; none for a point of the curve."""
        pod = self.pod
        named: dict[float, list[str]] = {round(cores, 3): [] for cores, _ in pod.curve}
        for cores, name in (
            (pod.cores / 2, "half"),
            (pod.cores, "now"),
            (pod.target, "target"),
            (pod.want, "want"),
            (pod.cores * 2, "double"),
        ):
            if cores >= _LEAST_CORES:
                named.setdefault(round(cores, 3), []).append(name)
        return {cores: ", ".join(named[cores]) for cores in sorted(named)}


def headroom_share() -> float:
    """The floor serves this share more rows than arrive."""
    headroom = CoresRules(_LEAST_CORES, _LEAST_CORES).headroom
    assert headroom is not None
    return headroom
