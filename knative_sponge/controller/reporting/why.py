"""One sentence on why a revision has the sizes it has, from what is known of its pods and their nodes; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from knative_sponge.controller.reporting.rows import NodeRow, PodRow

STALE_S: Final = 5.0
"""The proxy speaks every second; a demand older than this says nothing of now."""
_LEAST_MISSES: Final = 0.005
"""Rows per second below which nothing is worth a word."""
_ABOVE: Final = 1.1
"""A size so many times what is wanted is worth a word: it was given ahead of need (`core/allocation/growth.py`), or is
kept a while."""


def why(pods: Sequence[PodRow], wanted_pods: int, node: Callable[[str], NodeRow | None]) -> str:
    """The most pressing of: no pods, no news, a resize that does not come, a short node, growth, an enough size."""
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
    """Was nothing heard from the pod for so long that its demand says nothing of now?"""
    return pod.news_s is None or pod.news_s > STALE_S
