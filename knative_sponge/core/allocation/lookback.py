"""The largest need of a pod of late; how late follows from whether its shrinks have lasted.

Under a load that stays as it is, what a pod needs moves about: a queue is there or it is not. Too short a look back finds less
than the most that the load ever needs, the pod shrinks, and has to grow again soon. Each such growth says so, and doubles the
look back, until it covers what the load brings. In virtual time that halves the resizes under steady loads, for as many
cores: what lasts then is the least that was enough, instead of a growth's further cores half of the time.
"""

from __future__ import annotations

from typing import Final

from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.allocation.peak import Peak

_SOON: Final = 2.0
"""A growth that comes within so many looks back of a shrink takes it back."""
_OTHER: Final = 0.5
"""At less than this share of the rate, what was found out about the load before says nothing."""


class Lookback:
    """One pod's. rules: `hold_s` is the shortest look back, `patience_s` the longest."""

    __slots__ = ("_cores", "_peak", "_rate", "_rules", "_shrunk_s")

    def __init__(self, rules: GrowthRules) -> None:
        self._rules = rules
        self._peak = Peak(rules.hold_s)
        self._rate = 0.0
        self._cores: float | None = None
        self._shrunk_s: float | None = None

    @property
    def window_s(self) -> float:
        """The look back now."""
        return self._peak.window_s

    def add(self, now: float, need: float, rate: float, cores: float) -> float:
        """Count what is needed now and return the largest need of late. rate: rows per second. cores: the size that was
        accepted last; where it is another than the time before, the pod was resized in between. now: never goes back."""
        if self._cores is not None and cores != self._cores:
            self._resized(now, cores > self._cores, rate)
        self._cores = cores
        if self.window_s > self._rules.hold_s and rate < _OTHER * self._rate:
            self._peak.window_s = self._rules.hold_s
        return self._peak.add(now, need)

    def _resized(self, now: float, grew: bool, rate: float) -> None:
        if not grew:
            self._shrunk_s = now
            return
        if self._shrunk_s is None:
            return
        rules, window_s = self._rules, self.window_s
        if now - self._shrunk_s < _SOON * window_s:
            self._peak.window_s = max(window_s, min(2.0 * window_s, rules.patience_s))
            self._rate = rate
        else:
            self._peak.window_s = max(rules.hold_s, window_s / 2.0)
        self._shrunk_s = None
