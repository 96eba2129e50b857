"""When requests are sent: arrival processes over a rate that changes each second. No sockets, no clock.

`rates` are requests per second, one value for each second from time 0 on. Send times are seconds, ascending.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import reduce
from itertools import accumulate, pairwise


class ArrivalKind(StrEnum):
    """The arrival process."""

    BURST = "burst"
    POISSON = "poisson"
    UNIFORM = "uniform"


def arrivals(kind: ArrivalKind, rates: Sequence[float], rng: random.Random) -> list[float]:
    """Send times of the named process."""
    process: Callable[[Sequence[float], random.Random], list[float]] = {
        ArrivalKind.BURST: burst,
        ArrivalKind.POISSON: poisson,
        ArrivalKind.UNIFORM: lambda rates, _: uniform(rates),
    }[kind]
    return process(rates, rng)


def burst(rates: Sequence[float], rng: random.Random) -> list[float]:
    """Sponge's load generator in its mode "exponential": a train of bursts, one at the start of each second.

    Each of a second's N requests comes after an exponential delay of its own, with mean 1/N s, from the second's start. So
    most requests of a second come within a few 1/N. Fractions of a request are carried to later seconds.
    """
    times: list[float] = []
    whole = [int(total + 1e-9) for total in accumulate(_checked(rates), initial=0.0)]
    for second, (before, after) in enumerate(pairwise(whole)):
        count = after - before
        times += [second + rng.expovariate(count) for _ in range(count)]
    return sorted(times)


def poisson(rates: Sequence[float], rng: random.Random) -> list[float]:
    """A Poisson process whose intensity is the rate of the second."""
    total = _total(rates)
    due: list[float] = []
    at = rng.expovariate(1)
    while at < total:
        due.append(at)
        at += rng.expovariate(1)
    return _at_totals(due, rates)


def uniform(rates: Sequence[float]) -> list[float]:
    """Evenly spaced requests: request k, counted from 0, is sent when k + ½ requests were due."""
    total = _total(rates)
    return _at_totals((index + 0.5 for index in range(math.ceil(total)) if index + 0.5 < total), rates)


def surges(base: float, factor: float, seconds: int, rng: random.Random) -> list[float]:
    """Rates of a load that changes within seconds: a steady `base` with surges to `factor`·base.

    A surge lasts 3 to 5 s and starts 4 to 8 s after the end of the one before. The first 3 to 5 s are steady.
    """
    if base <= 0 or factor < 1:
        raise ValueError("base must be above 0 and factor at least 1")
    rates = [base] * rng.randint(3, 5)
    while len(rates) < seconds:
        rates += [base * factor] * rng.randint(3, 5) + [base] * rng.randint(4, 8)
    return rates[:seconds]


def _checked(rates: Sequence[float]) -> Sequence[float]:
    if any(not 0 <= rate < float("inf") for rate in rates):
        raise ValueError("every rate must be a number of at least 0")
    return rates


def _total(rates: Sequence[float]) -> float:
    """The sum of the rates, rounded exactly as in `_at_totals`, which must never look beyond the last second."""
    return reduce(operator.add, _checked(rates), 0.0)


def _at_totals(totals: Iterable[float], rates: Sequence[float]) -> list[float]:
    """The times at which the summed rates reach the given totals, which ascend and stay below the overall sum."""
    times: list[float] = []
    second, passed = 0, 0.0
    for total in totals:
        while passed + rates[second] <= total:
            passed += rates[second]
            second += 1
        times.append(second + (total - passed) / rates[second])
    return times
