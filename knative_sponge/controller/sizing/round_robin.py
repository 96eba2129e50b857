"""Spreads the turns of many over a period: each has one, and never all at once, as that would take too long. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable


class RoundRobin:
    """In each round of `period_s` seconds everybody has one turn, in the order of their names as given."""

    def __init__(self, period_s: float) -> None:
        if not period_s > 0:
            raise ValueError(f"period_s must be above 0, not {period_s}")
        self._period_s = period_s
        self._round: tuple[str, ...] = ()
        self._begun_s = -math.inf
        self._had = 0

    def due(self, everybody: Callable[[], Iterable[str]], now: float) -> tuple[str, ...]:
        """Who has a turn now. everybody: called at the begin of each round. now: seconds, never falling."""
        share = (now - self._begun_s) / self._period_s
        if share >= 1:
            rest = self._round[self._had :]
            self._round, self._begun_s, self._had = tuple(everybody()), now, 0
            return rest
        had, self._had = self._had, int(share * len(self._round))
        return self._round[had : self._had]
