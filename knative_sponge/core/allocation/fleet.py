"""How many pods of what size serve a load with the least cores (docs/design.md §4.10). A snapshot: no queue, no time.

Small pods serve more rows per core, as long as a batch still fits the slack. Each pod also costs the cores of its sidecar.
The best pod size follows from these two; nothing searches for it separately.
"""

from __future__ import annotations

from math import ceil, inf
from typing import NamedTuple

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.throughput import floor_cores


class Fleet(NamedTuple):
    """pods: how many, of `cores` each. rows: of the smallest batch that keeps up on such a pod. enough: they carry the load."""

    pods: int
    cores: float
    rows: int
    enough: bool


def cheapest_fleet(
    params: LatencyParams,
    rate: float,
    slack_s: float,
    *,
    max_rows: int,
    min_cores: float,
    max_cores: float,
    overhead_cores: float = 0.025,
    headroom: float = 0.1,
    caution: float = 1.0,
    least: int = 1,
    most: int = 100,
) -> Fleet:
    """The fleet of the least cores in all, ``pods·(cores + overhead)``; of several such fleets the one of fewest pods.

    Batches of b rows on c cores fit the slack, ``caution·l(b,c) ≤ slack_s``, and together the pods keep up,
    ``pods·b/l(b,c) ≥ (1 + headroom)·rate``. Exact but for the millicore to which cores are rounded up. O(most·log(max_rows)).

    rate: rows per second, for all pods together. slack_s: what is left of the tightest deadlines on arrival. caution: factor
    from the median latency to the one that batches are sized with. overhead_cores: requested by a pod's other containers.
    least, most: pods.

    `enough` is False when no fleet does both. The answer is then the fewest pods that keep up whatever the slack, each of
    `max_cores`; where none keeps up either, `most` pods of `max_cores`. Raises ValueError for parameters that make no sense.
    """
    possible = 0.0 < min_cores <= max_cores and 1 <= least <= most and max_rows >= 1
    if not (possible and caution >= 1.0 and overhead_cores >= 0.0):
        raise ValueError(
            f"impossible bounds: {min_cores}…{max_cores} cores, {least}…{most} pods, {max_rows} rows, caution {caution}"
        )
    found, total = None, inf
    # A lower bound for any batch size: the parallel work of all rows needs so many cores. Each pod adds its overhead.
    work = (1.0 + headroom) * rate * (params.gamma + params.epsilon / max_rows)
    for pods in range(least, most + 1):
        if max(pods * min_cores, work) + pods * overhead_cores >= total:
            break
        needed = floor_cores(params, rate / pods, max_rows, slack_s / caution, headroom)
        if needed is None:
            continue
        cores = min(max(min_cores, ceil(needed * 1000.0 - 1e-6) / 1000.0), max_cores)
        rows = _rows(params, rate / pods, slack_s / caution, max_rows, cores, headroom)
        if rows is not None and pods * (cores + overhead_cores) < total:
            found, total = Fleet(pods, cores, rows, enough=True), pods * (cores + overhead_cores)
    if found is not None:
        return found
    for pods in range(least, most + 1):
        if (rows := _rows(params, rate / pods, inf, max_rows, max_cores, headroom)) is not None:
            return Fleet(pods, max_cores, rows, enough=False)
    # The largest batch carries the most rows per second, and any does where a batch costs nothing but its rows.
    fastest = 1 if params.latency_s(max_rows, max_cores) >= max_rows * params.latency_s(1, max_cores) else max_rows
    return Fleet(most, max_cores, fastest, enough=False)


def _rows(
    params: LatencyParams, rate: float, slack_s: float, max_rows: int, cores: float, headroom: float
) -> int | None:
    """Rows of the smallest batch that fits the slack and keeps up on so many cores; None when there is none.

    The largest batch carries the most rows per second, and takes longest. So the smallest that keeps up is bisected.
    """
    needed = (1.0 + headroom) * rate

    def keeps_up(rows: int) -> bool:
        return rows * (1.0 + 1e-9) >= needed * params.latency_s(rows, cores)

    if not keeps_up(max_rows):
        return None
    low, high = 0, max_rows
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps_up(middle) else (middle, high)
    return high if params.latency_s(high, cores) <= slack_s * (1.0 + 1e-9) else None
