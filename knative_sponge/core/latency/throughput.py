"""How many rows per second a number of cores can serve, and the least cores that serve a rate for ever.

It knows no queue and no deadlines of single requests: those are the business of `core/demand/estimator.py`.
"""

from __future__ import annotations

from math import inf
from typing import Final

from knative_sponge.core.latency.curve import LatencyParams

_MAX_CORES_RATIO: Final = 3.0
"""Batches within half of the slack are planned when they take at most so many times the cores of batches within all of it.

The ratio is 2 where all of a batch's time shrinks with cores. It grows without bound as the serial part of a batch, which no
cores shorten, comes near half of the slack.
"""


def max_throughput(params: LatencyParams, cores: float, max_batch: int) -> float:
    """The most rows per second that so many cores can serve, with batches of up to `max_batch` rows."""
    return max(rows / params.latency_s(rows, cores) for rows in range(1, max_batch + 1))


def floor_cores(
    params: LatencyParams, rate: float, max_rows: int, slack_s: float = inf, headroom: float = 0.075
) -> float | None:
    """The least cores at which some batch size b keeps up, ``b/l(b,c) ≥ (1 + headroom)·rate``, within the slack, ``l(b,c) ≤
    slack_s``.

    rate: rows per second. slack_s: seconds that a batch may take; infinite when only throughput counts. headroom: 0.05 to
    0.1 (docs/design.md §4.7). None when no number of cores is enough; 0 when any is. Raises ValueError for a negative rate
    or fewer than one row.

    The answer is exact. Each b asks for ``l(b,c) ≤ min(slack_s, b/((1 + headroom)·rate))``, which is linear in 1/c; the
    least answer of all b counts. Up to b* = slack_s·(1 + headroom)·rate rows the throughput decides, and a larger batch needs
    fewer cores; beyond them the slack decides, and a smaller one does. So it is one of the two at b*. O(1).
    """
    if not rate >= 0.0:
        raise ValueError(f"rate must be at least 0, not {rate}")
    if max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, not {max_rows}")
    gamma, delta, epsilon, eta = params.gamma, params.delta, params.epsilon, params.eta
    needed = (1.0 + headroom) * rate
    least: float | None = None
    for rows in _around(slack_s * needed if needed else 1.0, max_rows):
        allowed_s = min(slack_s, rows / needed) if needed > 0.0 else slack_s
        serial_s = delta * rows + eta
        left_s = allowed_s - serial_s
        parallel = gamma * rows + epsilon
        if serial_s > slack_s or left_s < 0.0 or (left_s == 0.0 and parallel > 0.0):
            continue
        cores = parallel / left_s if parallel > 0.0 else 0.0
        if least is None or cores < least:
            least = cores
    return least


def _around(rows: float, max_rows: int) -> range:
    """The batch sizes next to `rows`, from 1 to max_rows. One more on each side, since `rows` is rounded."""
    if not rows < max_rows:
        return range(max_rows, max_rows + 1)
    return range(max(1, int(rows) - 1), min(max_rows, int(rows) + 2) + 1)


def sustainable_cores(
    params: LatencyParams, rate: float, max_rows: int, slack_s: float, headroom: float
) -> tuple[float | None, bool]:
    """The least cores that keep up with a rate for ever, and whether they serve even the most urgent requests in time.

    A request that just misses a batch waits for that whole batch and then for its own. So batches should take at most half
    of the slack (as in Nexus, SOSP 2019). There are two exceptions:

    - Half of the slack takes more than `_MAX_CORES_RATIO` times the cores, or no number of cores is enough. Then batches may
      take all of the slack. That serves a request in time that finds the model server idle.
    - All of the slack is not enough either. Then the slack is ignored: batches are too slow for the most urgent requests and
      still serve the others.

    Arguments as in `floor_cores`; None in place of the cores when no number of cores keeps up.
    """
    whole = floor_cores(params, rate, max_rows, slack_s, headroom)
    if whole is None:
        return floor_cores(params, rate, max_rows, inf, headroom), False
    half = floor_cores(params, rate, max_rows, slack_s / 2.0, headroom)
    return (whole if half is None or half > _MAX_CORES_RATIO * whole else half), True
