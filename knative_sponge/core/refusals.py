"""Sizes that were refused lately, and for how long they are not asked for again; who refused them is not known here.

Of a growth that was refused, half is asked for next: a quota or a node that has no room for all may have room for some.
"""

from __future__ import annotations

from dataclasses import dataclass

_NEAR = 0.1
"""Between sizes this close, as a share of what the pod has, nothing is worth another request."""


@dataclass(frozen=True, slots=True)
class _Bound:
    cores: float
    until_s: float


class Refusals:
    """Bounds for what to ask for, in cores. keep_s: seconds that each is kept."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._ceiling: _Bound | None = None
        self._floor: _Bound | None = None

    def add(self, refused: float, kept: float, now: float) -> None:
        """`refused` was refused to a pod that has `kept`. For a while nothing below `kept` is asked for, or nothing above the
        middle of both; above `kept` where they are close."""
        bound = _Bound(kept, now + self._keep_s)
        if refused - kept > _NEAR * kept:
            bound = _Bound(round((refused + kept) / 2, 3), now + self._keep_s)
        # Of two bounds that contradict each other the newer one holds.
        if refused > kept:
            self._ceiling = bound
            if self._floor is not None and self._floor.cores > bound.cores:
                self._floor = None
        else:
            self._floor = bound
            if self._ceiling is not None and self._ceiling.cores < bound.cores:
                self._ceiling = None

    def clear(self) -> None:
        """Circumstances changed."""
        self._ceiling = self._floor = None

    def ceiling(self, now: float) -> float | None:
        """The most to ask for; None when nothing bounds it."""
        return self._ceiling.cores if self._ceiling is not None and now < self._ceiling.until_s else None

    def floor(self, now: float) -> float | None:
        """The least to ask for; None when nothing bounds it."""
        return self._floor.cores if self._floor is not None and now < self._floor.until_s else None

    def clamp(self, cores: float, now: float) -> float:
        """The nearest size that may be asked for."""
        ceiling, floor = self.ceiling(now), self.floor(now)
        cores = cores if ceiling is None else min(cores, ceiling)
        return cores if floor is None else max(cores, floor)

    def next_end_s(self, now: float) -> float | None:
        """When the next bound ends."""
        ends = (bound.until_s for bound in (self._ceiling, self._floor) if bound is not None)
        return min((end for end in ends if end > now), default=None)
