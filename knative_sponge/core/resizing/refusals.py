"""Sizes that were refused lately, and for how long they are not asked for again.

Of a growth that was refused, the need is asked for next, where more than that was; then half of what is left, and so on: a
quota or a node that has no room for all may have room for some. What is found that way is remembered for longer: when all is
asked for again after a minute and refused again, no second search follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["node", "quota", "other"]
"""Who refused: the node can never give it; a quota or limit of the namespace; or it was not understood."""

_NEAR = 0.1
"""Between sizes this close, as a share of what the pod has, nothing is worth another request."""
_FOUND_S = 600.0


@dataclass(frozen=True, slots=True)
class _Bound:
    cores: float
    until_s: float
    cause: Cause


class Refusals:
    """Bounds for what to ask for, in cores. keep_s: seconds that each is kept."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._ceiling: _Bound | None = None
        self._floor: _Bound | None = None
        self._found: _Bound | None = None
        """The most that is granted, as far as a search has shown."""

    def add(self, refused: float, kept: float, now: float, cause: Cause, need: float | None = None) -> None:
        """`refused` was refused to a pod that has `kept` and needs `need`, if that is less. For a while nothing below `kept`
        is asked for, or above what is tried next."""
        # Of two bounds that contradict each other the newer one holds.
        if refused > kept:
            most = self._next(refused, kept, now, cause, need)
            self._ceiling = _Bound(most, now + self._keep_s, cause)
            if self._floor is not None and self._floor.cores > most:
                self._floor = None
        else:
            self._floor = _Bound(kept, now + self._keep_s, cause)
            if self._ceiling is not None and self._ceiling.cores < kept:
                self._ceiling = None

    def _next(self, refused: float, kept: float, now: float, cause: Cause, need: float | None) -> float:
        if cause == "other":
            return kept  # it may have nothing to do with how much it was
        if need is not None and kept < need < refused:
            return need
        found = self._found if self._found is not None and now < self._found.until_s else None
        if found is not None and found.cores < refused:
            return max(found.cores, kept)
        if refused - kept > _NEAR * kept:
            return round((refused + kept) / 2, 3)
        self._found = _Bound(kept, now + _FOUND_S, cause)
        return kept

    def clear(self, cause: Cause) -> None:
        """Whoever refused may grant it now."""
        self._ceiling, self._floor = (
            None if bound is not None and bound.cause == cause else bound for bound in (self._ceiling, self._floor)
        )

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
