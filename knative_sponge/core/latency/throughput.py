"""How many rows per second a number of cores can serve, and the least cores that serve a rate for ever. No queue and no
deadlines of single requests: that is `core/demand/estimator.py`."""

from __future__ import annotations

from math import inf
from typing import Final

from knative_sponge.core.latency.curve import LatencyParams

_MAX_CORES_RATIO: Final = 3.0
"""Batches in half of the slack may take so many times the cores. It is twice where cores shorten all of a batch, and has a pole
where what they do not shorten takes half of the slack."""


def max_throughput(params: LatencyParams, cores: float, max_batch: int) -> float:
    """The most rows per second that so many cores can serve."""
    return max(rows / params.latency_s(rows, cores) for rows in range(1, max_batch + 1))


def floor_cores(
    params: LatencyParams, rate: float, max_rows: int, slack_s: float = inf, headroom: float = 0.075
) -> float | None:
    """The least cores at which some batch is fast enough and keeps up: ``b/l(b,c) ≥ (1 + headroom)·rate``, ``l(b,c) ≤
    slack_s``.

    rate: rows per second. slack_s: what a batch may take; infinite when only throughput counts. headroom: 0.05 to 0.1
    (design §4). Exact: each b asks for ``l(b,c) ≤ min(slack_s, b/((1 + headroom)·rate))``, which is linear in 1/c,
    and the least answer of all b counts. None when no number of cores will do; 0 when any will. Raises ValueError for
    a negative rate or fewer than one row.
    """
    if not rate >= 0.0:
        raise ValueError(f"rate must be at least 0, not {rate}")
    if max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, not {max_rows}")
    gamma, delta, epsilon, eta = params.gamma, params.delta, params.epsilon, params.eta
    needed = (1.0 + headroom) * rate
    least: float | None = None
    for rows in range(1, max_rows + 1):
        allowed_s = min(slack_s, rows / needed) if needed > 0.0 else slack_s
        serial_s = delta * rows + eta
        if serial_s > slack_s:
            break  # so is every larger batch
        left_s = allowed_s - serial_s
        parallel = gamma * rows + epsilon
        if left_s < 0.0 or (left_s == 0.0 and parallel > 0.0):
            continue
        cores = parallel / left_s if parallel > 0.0 else 0.0
        if least is None or cores < least:
            least = cores
    return least


def sustainable_cores(
    params: LatencyParams, rate: float, max_rows: int, slack_s: float, headroom: float
) -> tuple[float | None, bool]:
    """The least cores that keep up with a rate for ever, and whether even the most urgent are served in time then.

    A request that has just missed a batch waits for all of it and then for its own, so batches may take half of the slack
    (as in Nexus, SOSP 2019). Where no size makes them so fast, or only one several times as large because much of a batch's
    time is not the cores', all of it, which does for who meets no batch; and where not even that, batches too slow for the
    most urgent still serve the others. Arguments, and None, as in `floor_cores`.
    """
    whole = floor_cores(params, rate, max_rows, slack_s, headroom)
    if whole is None:
        return floor_cores(params, rate, max_rows, inf, headroom), False
    half = floor_cores(params, rate, max_rows, slack_s / 2.0, headroom)
    return (whole if half is None or half > _MAX_CORES_RATIO * whole else half), True
