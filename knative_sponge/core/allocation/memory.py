"""How much memory one container should have, by its measured use. Pure; nothing is read or patched here.

Too little memory kills the container, and too much only costs room. So memory grows early and at once, and shrinks late and
rarely: only after a whole `look_back_s` was watched, and never close to the largest use of that time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from knative_sponge.core.allocation.peak import Peak

STEP: Final = 16 * 2**20
"""Bytes. Sizes are multiples of it where no bound says otherwise."""


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """Shares are of the present size, times in seconds."""

    grow_above: float = 0.8
    """Use above this share makes it grow."""
    shrink_below: float = 0.45
    """Use that stayed below this share lets it shrink."""
    fill: float = 0.6
    """Share of a new size that is in use."""
    spare: float = 1.25
    """A shrink keeps at least so many times the largest use."""
    look_back_s: float = 600.0
    shrink_every_s: float = 300.0
    refusal_s: float = 60.0
    """A refused growth is not asked for again before so long."""

    def __post_init__(self) -> None:
        if not 0 < self.shrink_below < self.fill < self.grow_above < 1:
            raise ValueError("shrink_below, fill and grow_above must rise between 0 and 1")
        if not 1 < self.spare <= 1 / self.fill:
            raise ValueError(f"spare must be above 1 and at most 1/fill, not {self.spare}")
        for name in ("look_back_s", "shrink_every_s", "refusal_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


class MemoryNeed:
    """One container's need, from its first measurement on. now: monotonic seconds that never go back."""

    def __init__(self, rules: MemoryRules | None = None) -> None:
        self.rules = rules or MemoryRules()
        self.may_shrink = True
        """False for good once a shrink was refused: kubelets and API servers before Kubernetes 1.34 allow none."""
        self._peak = Peak(self.rules.look_back_s)
        self._since_s: float | None = None
        self._shrunk_s = -math.inf
        self._grow_from_s = -math.inf

    def target(self, used: int, present: int | None, low: int, high: int, room: int, now: float) -> int | None:
        """The size to ask for, in bytes; None leaves it as it is.

        used: the working set measured now. present: the limit, or the request of a container without a limit; None for a
        container with neither, which counts as too small. low, high: the least and the most that it may have. room: the most
        that its node could give now; it bounds growths only. Raises ValueError for bounds that contradict each other.
        """
        if not 0 < low <= high:
            raise ValueError(f"bounds must be above 0 and not fall, not {low} to {high}")
        if self._since_s is None:
            self._since_s = now
        peak = self._peak.add(now, used)
        rules, size = self.rules, present or 0
        if used > rules.grow_above * size or size < low:
            grown = _clamp(self._sized(used), low, high) if used > rules.grow_above * size else low
            if grown > room:
                grown = room // STEP * STEP
            return grown if grown > size and now >= self._grow_from_s else None
        watched = now - self._since_s >= rules.look_back_s and now - self._shrunk_s >= rules.shrink_every_s
        if self.may_shrink and watched and (peak < rules.shrink_below * size or size > high):
            # A user's upper bound does not take away what is in use.
            shrunk = max(_clamp(self._sized(int(peak)), low, high), math.ceil(peak * rules.spare))
            if shrunk < size:
                self._shrunk_s = now
                return shrunk
        return None

    def refused(self, wanted: int, present: int | None, now: float) -> None:
        """`wanted` was refused to a container that has `present`."""
        if wanted < (present or 0):
            self.may_shrink = False
        else:
            self._grow_from_s = now + self.rules.refusal_s

    def _sized(self, used: int) -> int:
        return max(math.ceil(used / self.rules.fill / STEP), 1) * STEP


def _clamp(size: int, low: int, high: int) -> int:
    return min(max(size, low), high)
