"""The largest recent need of one pod, over a look-back that adapts to how long the pod's shrinks last.

Under a steady load a pod's need still varies: sometimes a queue is there, sometimes not. A look-back that is too short
misses the largest need that this load brings. The pod then shrinks and must soon grow again. Each growth soon after a shrink
doubles the look-back, until it covers what the load brings. In virtual time that halves the resizes under steady loads, with
as many cores: the pod keeps the least size that was enough, instead of a growth's extra cores half of the time.
"""

from __future__ import annotations

from typing import Final

from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.allocation.peak import Peak

_TOO_SOON_WINDOWS: Final = 2.0
"""A growth within so many look-backs after a shrink shows that the look-back was too short."""
_SAME_LOAD_SHARE: Final = 0.5
"""Below this share of the earlier arrival rate the load counts as another one, and the look-back starts anew."""


class Lookback:
    """The adapting look-back of one pod. rules: `hold_s` is the shortest one, `max_lookback_s` the longest."""

    __slots__ = ("_cores", "_peak", "_rate", "_rules", "_shrunk_s")

    def __init__(self, rules: GrowthRules) -> None:
        self._rules = rules
        self._peak = Peak(rules.hold_s)
        self._rate = 0.0
        self._cores: float | None = None
        self._shrunk_s: float | None = None

    @property
    def window_s(self) -> float:
        """The present look-back, in seconds."""
        return self._peak.window_s

    def add(self, now: float, need: float, rate: float, cores: float) -> float:
        """Count the present need and return the largest need of the look-back, in cores.

        rate: arriving rows per second. cores: the size that the API server accepted last; a change since the call before
        means that the pod was resized. now: monotonic seconds, never falling.
        """
        if self._cores is not None and cores != self._cores:
            self._resized(now, cores > self._cores, rate)
        self._cores = cores
        if self.window_s > self._rules.hold_s and rate < _SAME_LOAD_SHARE * self._rate:
            self._peak.window_s = self._rules.hold_s
        return self._peak.add(now, need)

    def _resized(self, now: float, grew: bool, rate: float) -> None:
        if not grew:
            self._shrunk_s = now
            return
        if self._shrunk_s is None:
            return
        rules, window_s = self._rules, self.window_s
        if now - self._shrunk_s < _TOO_SOON_WINDOWS * window_s:
            self._peak.window_s = max(window_s, min(2.0 * window_s, rules.max_lookback_s))
            self._rate = rate
        else:
            self._peak.window_s = max(rules.hold_s, window_s / 2.0)
        self._shrunk_s = None
