"""Waits that double after each failure in a row; no randomness, so only for what does not fail in step with others."""

from __future__ import annotations

import math


class Backoff:
    """first_s, most_s: the first and the longest wait."""

    def __init__(self, first_s: float, most_s: float) -> None:
        if not 0 < first_s <= most_s:
            raise ValueError(f"a backoff must be above 0 and not fall, not {first_s} to {most_s}")
        self.until_s = -math.inf
        """Not before; -inf while nothing failed."""
        self._first_s = first_s
        self._most_s = most_s
        self._failures = 0

    def failed(self, now: float) -> None:
        """Once more; wait twice as long from now on."""
        self.until_s = now + min(self._first_s * 2.0 ** min(self._failures, 30), self._most_s)
        self._failures += 1

    def succeeded(self) -> None:
        """The next failure is a first one."""
        self.until_s, self._failures = -math.inf, 0
