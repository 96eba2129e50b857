"""What a pod claims of its node, from its settings, what its proxy said last and the state of its resize. Pure.

Words that this room uses for the cores of one pod, each for one thing:

    want        its proxy says that it needs so much now (`want` of a demand line)
    peak        the largest want of late (`core/allocation/lookback.py`)
    hold        what a claim keeps beyond the want: the present size, the peak, or nothing (`claim_holds.py`)
    claim       what the pod asks of its node in one division
    size        what the division gives it
    target      its size, or a size on the way there; a growth may go beyond it (`core/allocation/growth.py`)
    need        what of the target is not taken ahead of need
    asked       the API server has accepted it, or may yet accept it
    accepted    the API server has accepted it
    in force    the pod's status shows it
    actuation   resizers are given their targets (`actuation.py`)
"""

from __future__ import annotations

from typing import Final

import msgspec

from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.core.allocation.divide import Claim
from knative_sponge.core.resizing.machine import PodResize
from knative_sponge.wire.demand import DemandLine

STALE_S: Final = 3.0
"""A proxy sends a line every second. A pod whose last line is older than this keeps its size."""
_LEAST: Final = 0.001
_MIDDLE: Final = 5
"""The priority of a revision that names none. Each step above it makes a missed row count twice as much."""


class PodDemand(msgspec.Struct, frozen=True, gc=False):
    """What a pod's proxy said last.

    line: its last line. peak: the largest want of late, in cores. at_s: when the line came. since_s: when the want or the peak
    changed last. Both in monotonic seconds.
    """

    line: DemandLine
    peak: float
    at_s: float
    since_s: float = 0.0

    def stale(self, now: float) -> bool:
        """Is the line too old to resize the pod by?"""
        return now - self.at_s > STALE_S


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
    pod: PodView,
    machine: PodResize,
    demand: PodDemand | None,
    cores: float | None,
    capacity: float,
    now: float,
    admitted: float = 0.0,
) -> Claim:
    """The claim for `cores`. Without them or without a demand, the pod keeps its size. capacity: see `bounds`. admitted: cores
    with which the pod was admitted, as far as they count."""
    settings = pod.settings
    assert settings is not None
    low, high = bounds(pod, machine, capacity, now)
    present = machine.asked
    weight = 2.0 ** (settings.priority - _MIDDLE)
    tenant, admitted = pod.key[0], min(admitted, high)
    if demand is None or cores is None:
        return Claim(
            pod.key, present, (), present, low, high, weight, shrinkable=False, tenant=tenant, admitted=admitted
        )
    return Claim(
        pod.key, cores, _falling(demand.line.curve), present, low, high, weight, tenant=tenant, admitted=admitted
    )


def kept(pod: PodView, machine: PodResize) -> Claim:
    """The claim of a pod that is not understood: what it has."""
    present = machine.asked
    return Claim(
        pod.key,
        present,
        (),
        present,
        _LEAST,
        max(present, _LEAST),
        shrinkable=False,
        tenant=pod.key[0],
        admitted=present,
    )


def _falling(curve: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The points that a claim takes: cores rise, misses do not. A proxy's rounding may make one point of two."""
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
