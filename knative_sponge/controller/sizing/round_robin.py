"""Whose turn it is, when each of many shall have one now and then and all of them at once would take too long. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable


class RoundRobin:
    """period_s: everybody has a turn once in so many seconds; in a round, one after the other."""

    def __init__(self, period_s: float) -> None:
        if not period_s > 0:
            raise ValueError(f"period_s must be above 0, not {period_s}")
        self._period_s = period_s
        self._round: tuple[str, ...] = ()
        self._begun_s = -math.inf
        self._had = 0

    def due(self, everybody: Callable[[], Iterable[str]], now: float) -> tuple[str, ...]:
        """Who has a turn now. everybody: asked at the begin of each round. now: seconds, never falling."""
        share = (now - self._begun_s) / self._period_s
        if share >= 1:
            rest = self._round[self._had :]
            self._round, self._begun_s, self._had = tuple(everybody()), now, 0
            return rest
        had, self._had = self._had, int(share * len(self._round))
        return self._round[had : self._had]
