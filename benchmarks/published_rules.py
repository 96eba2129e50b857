"""The published rules that choose cores from a latency curve and a rate alone (Sponge, FA2). Ours is compared with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, inf
from typing import Final, NamedTuple, TypeAlias

from knative_sponge.core.latency.curve import Sample
from knative_sponge.core.latency.nnls import solve_regular

Latency: TypeAlias = Callable[[int, float], float]
"""Seconds of a batch of (rows, cores): `LatencyParams.latency_s`, `PlainParams.latency_s`, or a look-up in a
profile."""

_GRAIN_MS: Final = 1e-6
"""Slack against rounding: the conversion to milliseconds must change neither a truncation nor a comparison of equal values."""


class Setting(NamedTuple):
    """The answer of Sponge's solver. latency_s: of one such batch, as the solver predicted it."""

    cores: int
    rows: int
    latency_s: float


class Fleet(NamedTuple):
    """The answer of FA2's solver: so many instances of one core each. latency_s: of one such batch."""

    instances: int
    rows: int
    latency_s: float


@dataclass(frozen=True, slots=True)
class PlainParams:
    """The curve of `LatencyParams` with parameters of any sign, as plain least squares gives them."""

    gamma: float
    delta: float
    epsilon: float
    eta: float

    def latency_s(self, rows: int, cores: float) -> float:
        """Seconds; may be negative outside the profile."""
        return (self.gamma * rows + self.epsilon) / cores + self.delta * rows + self.eta


def plain_fit(samples: Iterable[Sample], truncate_ms: bool = True) -> PlainParams:
    """Sponge's fit: ordinary least squares of *absolute* errors over the profile, parameters free to be negative.

    truncate_ms: latencies are cut to whole milliseconds first, as published. The paper's non-linear solver is not
    needed, as the curve is linear in its parameters. Raises ValueError when the grid does not determine all four.
    """
    matrix = [[0.0] * 4 for _ in range(4)]
    vector = [0.0] * 4
    for sample in samples:
        features = (sample.rows / sample.cores, sample.rows, 1.0 / sample.cores, 1.0)
        seconds = _cut(sample.seconds) if truncate_ms else sample.seconds
        for i, left in enumerate(features):
            vector[i] += left * seconds
            for j, right in enumerate(features):
                matrix[i][j] += left * right
    return PlainParams(*solve_regular(matrix, vector))


def sponge_solver(
    latency: Latency,
    rate: float,
    network_s: float,
    slo_s: float,
    *,
    margin: float = 0.9,
    max_rows: int = 16,
    max_cores: int = 16,
    truncate_ms: bool = True,
) -> Setting | None:
    """Sponge's published rule: the fewest cores, then the smallest batch, that serve one second's requests in time.

    All ``rate`` requests of a second count as present at once, and each has spent `network_s` of its `slo_s`. Batches follow
    one another, and the last must end within `margin` of the SLO. None when no setting does; the published loop then keeps
    its old one. The rule does not ask whether throughput keeps up with the rate, so with long SLOs its answer may be unstable;
    compare `floor_cores` (`core/latency/throughput.py`). truncate_ms: predictions are cut to whole milliseconds, as published.
    """
    budget_ms = 1000.0 * (margin * slo_s - network_s) + _GRAIN_MS
    for cores in range(1, max_cores + 1):
        for rows in range(1, max_rows + 1):
            each_s = _predicted(latency, rows, cores, truncate_ms)
            if ceil(rate / rows) * each_s * 1000.0 <= budget_ms:
                return Setting(cores, rows, each_s)
    return None


def fa2_solver(
    latency: Latency,
    rate: float,
    network_s: float,
    slo_s: float,
    *,
    margin: float = 0.9,
    max_rows: int = 8,
    max_instances: int = 16,
    truncate_ms: bool = True,
) -> Fleet | None:
    """The horizontal baseline that Sponge was compared with (FA2): the fewest one-core instances, then the smallest batch.

    An instance serves ``⌊remaining/l⌋`` batches within the part of the SLO that the network left. All instances together
    must carry a second's requests, and the last request must end before `margin` of the SLO. None when no count does.
    """
    remaining_s = slo_s - network_s
    budget_ms = 1000.0 * (margin * slo_s - network_s) - _GRAIN_MS
    for instances in range(1, max_instances + 1):
        for rows in range(1, max_rows + 1):
            each_s = _predicted(latency, rows, 1.0, truncate_ms)
            if each_s > remaining_s:
                continue
            turns = (1000.0 * remaining_s + _GRAIN_MS) // (1000.0 * each_s) if each_s > 0.0 else inf
            total_s = each_s + each_s * ceil(rate / (rows * instances))
            if instances * turns * rows >= rate and total_s * 1000.0 < budget_ms:
                return Fleet(instances, rows, each_s)
    return None


def _predicted(latency: Latency, rows: int, cores: float, truncate_ms: bool) -> float:
    seconds = latency(rows, cores)
    return _cut(seconds) if truncate_ms else seconds


def _cut(seconds: float) -> float:
    """Down to a whole millisecond."""
    return int(seconds * 1000.0 + _GRAIN_MS) / 1000.0
