"""The demo's load, chosen so that this machine can just serve it. It plans, and starts and measures nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.throughput import max_throughput
from knative_sponge.profile.arrivals import ArrivalKind, arrivals, surges
from knative_sponge.profile.load import Planned
from knative_sponge.profile.trace import TraceKind, synthetic_trace

SURGE: Final = 3.5
"""The rate in a surge is so many times the steady rate."""
_PEAK: Final = 0.7
"""A surge asks for this share of the most that the machine can serve. That is feasible, but only with nearly all cores."""
_SHARED_CORES: Final = 0.6
"""Cores left to the proxy, the load's client and the system, which share the machine with the model server."""
_MOST_CORES: Final = 4.0
"""More cores would need more load than one client process makes."""
_MOST_RATE: Final = 120.0
"""Requests per second that one client process, on a fraction of a core, sends on time."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load, the same for every strategy.

    slo_s: from send to answer. max_cores: the most that the model server may have. rates: requests per second, one value for
    each second. planned: every request to come. trace: how the network's bandwidth was made.
    """

    slo_s: float
    max_cores: float
    rates: tuple[float, ...]
    planned: tuple[Planned, ...]
    arrival: ArrivalKind
    trace: TraceKind
    seed: int

    @property
    def seconds(self) -> int:
        """Length of the load."""
        return len(self.rates)


def cores_for_server(machine_cores: int) -> float:
    """The most cores of the model server in the demo: all but those of proxy and client, on a grid of 0.1."""
    return round(max(min(machine_cores - _SHARED_CORES, _MOST_CORES), 0.4), 1)


def slo_for(params: LatencyParams, cores: float) -> float:
    """A deadline that this machine can keep, in steps of 100 ms: 500 ms, or eight times the latency of one row on a third of
    the cores where that is more."""
    return max(0.5, math.ceil(80 * params.latency_s(1, cores / 3)) / 10)


def make_scenario(
    params: LatencyParams,
    *,
    max_cores: float,
    max_batch: int,
    payloads: Sequence[int],
    seconds: int,
    seed: int,
    arrival: ArrivalKind = ArrivalKind.POISSON,
    trace: TraceKind = TraceKind.QMAP,
    slo_s: float | None = None,
    base_rate: float | None = None,
) -> Scenario:
    """A steady load with surges that ask for `_PEAK` of the throughput of `max_cores`, sent over one 4G link.

    payloads: bytes of each of the bodies to send. slo_s, base_rate: None takes those that fit this machine.
    """
    slo_s = slo_for(params, max_cores) if slo_s is None else slo_s
    if base_rate is None:
        base_rate = min(_PEAK * max_throughput(params, max_cores, max_batch), _MOST_RATE) / SURGE
    rng = random.Random(seed)
    rates = surges(base_rate, SURGE, seconds, rng)
    link = synthetic_trace(seconds, rng, trace)
    planned = []
    for at_s in arrivals(arrival, rates, rng):
        body = rng.randrange(len(payloads))
        planned.append(Planned(at_s, link.network_s(payloads[body], at_s), slo_s, body))
    return Scenario(slo_s, max_cores, tuple(rates), tuple(planned), arrival, trace, seed)
