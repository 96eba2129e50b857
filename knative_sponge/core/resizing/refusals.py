"""Sizes that were refused lately, and for how long they are not asked for again.

A quota or a node that has no room for all of a growth may have room for a part of it. So after a refusal the pod's need is
asked for, if that was less; then half of the growth that is left, and so on. The size that this search finds is remembered
for longer than the refusal. When all is asked for again after a minute and refused again, no second search follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["node", "quota", "other"]
"""Why it was refused: the node can never give so much; a quota or limit of the namespace forbids it; any other reason."""

_NEGLIGIBLE_SHARE = 0.1
"""A growth by a smaller share of the present size is not worth another request: the search ends."""
_KEEP_FOUND_S = 600.0
"""Seconds that the result of a search is remembered."""


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
        """The largest size that is granted, as found by the last search."""

    def add(self, refused: float, kept: float, now: float, cause: Cause, need: float | None = None) -> None:
        """`refused` was refused to a pod that keeps `kept`; `need` is what it needs, None where that is all of `refused`.

        After a refused growth nothing above the next size of the search is asked for, and after a refused shrink nothing below
        `kept`, each for `keep_s`. Of two bounds that contradict each other the newer one holds.
        """
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
            return kept  # the amount may not be the reason
        if need is not None and kept < need < refused:
            return need
        found = self._found if self._found is not None and now < self._found.until_s else None
        if found is not None and found.cores < refused:
            return max(found.cores, kept)
        if refused - kept > _NEGLIGIBLE_SHARE * kept:
            return round((refused + kept) / 2, 3)
        self._found = _Bound(kept, now + _KEEP_FOUND_S, cause)
        return kept

    def clear(self, cause: Cause) -> None:
        """Forget refusals of this cause: what was refused may be granted now."""
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
