"""One sentence that explains a revision's sizes, made from its pods' and nodes' rows; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from knative_sponge.controller.reporting.rows import NodeRow, PodRow

STALE_S: Final = 5.0
"""A proxy sends its demand every second. A demand older than this does not count any more."""
_LEAST_MISSES: Final = 0.005
"""Fewer missed rows per second than this are not mentioned."""
_ABOVE: Final = 1.1
"""A size above so many times what is wanted is mentioned: it was given in advance (`core/allocation/growth.py`), or is still
kept."""


def why(pods: Sequence[PodRow], wanted_pods: int, node: Callable[[str], NodeRow | None]) -> str:
    """The first that holds: no pods, silent pods, a resize that waits, a short node, a size below what is wanted, enough."""
    if not pods:
        return f"waits for {wanted_pods} pods to start" if wanted_pods else "at zero: no requests"
    silent = [pod for pod in pods if stale(pod)]
    if silent:
        return f"no news from {len(silent)} of {len(pods)} pods: they keep their size"
    for pod in pods:
        if pod.pending:
            return f"a resize waits: {pod.pending}"
    held = max(pods, key=lambda pod: pod.want - pod.target)
    where = node(held.node)
    if where is not None and where.short and held.target < held.want:
        return f"short: node {where.name} has {where.capacity:.4g} cores for {where.wanted:.4g} wanted"
    wanted, cores = sum(pod.want for pod in pods), sum(pod.cores for pod in pods)
    missed = sum(pod.misses(pod.cores) or 0.0 for pod in pods)
    if wanted > cores and missed >= _LEAST_MISSES:
        return f"wants {wanted:.4g} cores: {missed:.3g} rows/s miss at {cores:.4g}"
    if wanted > cores:
        return f"wants {wanted:.4g} cores, has {cores:.4g}"
    if missed >= _LEAST_MISSES:
        return f"{missed:.3g} rows/s miss, and more cores would save none of them"
    enough = f"{cores:.4g} cores are enough for {sum(pod.rate for pod in pods):.3g} rows/s"
    return f"{enough}: {wanted:.4g} are wanted, the rest nobody else needs now" if cores > _ABOVE * wanted else enough


def stale(pod: PodRow) -> bool:
    """Is the pod's last demand older than STALE_S, or was there none?"""
    return pod.news_s is None or pod.news_s > STALE_S
