"""What a pod may claim of its node, from its settings, its proxy's last word and the state of its resize. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.core.allocation.divide import Claim
from knative_sponge.core.resizing.machine import PodResize
from knative_sponge.wire.demand import DemandLine

STALE_S: Final = 3.0
"""A proxy speaks every second. One that was silent for longer keeps its size."""
_MIDDLE: Final = 5
"""The priority of a revision that names none; each step above it makes a missed row count twice as much."""


class PodDemand(msgspec.Struct, frozen=True, gc=False):
    """A pod's last word. want: the largest need of late. at_s: when `line` came. since_s: when either need last changed."""

    line: DemandLine
    want: float
    at_s: float
    since_s: float = 0.0


def bounds(pod: PodView, machine: PodResize, capacity: float, now: float) -> tuple[float, float]:
    """Least and most cores of a pod on a node that can give its managed pods `capacity` in all."""
    settings = pod.settings
    assert settings is not None
    low = settings.min_cores
    high = settings.max_cores if settings.max_cores is not None else max(capacity, low)
    if (floor := machine.floor(now)) is not None:
        low = min(max(low, floor), high)
    if (ceiling := machine.ceiling(now)) is not None:
        high = max(min(high, ceiling), low)
    return low, high


def claim(
    pod: PodView, machine: PodResize, demand: PodDemand | None, want: float | None, capacity: float, now: float
) -> Claim:
    """The claim: `want` cores; of a pod without news, that it keeps its size."""
    settings = pod.settings
    assert settings is not None
    low, high = bounds(pod, machine, capacity, now)
    present = machine.asked
    weight = 2.0 ** (settings.priority - _MIDDLE)
    if demand is None or want is None or now - demand.at_s > STALE_S:
        return Claim(pod.key, present, (), present, low, high, weight, shrinkable=False)
    return Claim(pod.key, want, _falling(demand.line.curve), present, low, high, weight)


def _falling(curve: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The points that a claim takes: cores rise, misses do not. A proxy's rounding may make two of them one."""
    last, least = 0.0, float("inf")
    for cores, misses in curve:
        if not (cores > last and 0 <= misses <= least):
            break
        last, least = cores, misses
    else:
        return curve
    points: list[tuple[float, float]] = []
    for cores, misses in sorted(curve):
        worst = points[-1][1] if points else float("inf")
        if cores > 0 and misses >= 0 and (not points or cores > points[-1][0]):
            points.append((cores, min(misses, worst)))
    return tuple(points)
