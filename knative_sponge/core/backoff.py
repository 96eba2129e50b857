"""How long to wait before the next try; the waiting itself is the caller's."""

from __future__ import annotations

import math
from collections.abc import Callable


class Backoff:
    """Doubling waits, from `first_s` up to `most_s`; of failures in a row.

    jitter: a number from 0 up to 1 for each failure, as `random.random`. Each wait is shortened by up to half of itself
    with it, so that many who fail together do not try together; without it nothing is.
    """

    def __init__(self, first_s: float, most_s: float, jitter: Callable[[], float] = lambda: 0.0) -> None:
        if not 0 < first_s <= most_s:
            raise ValueError(f"waits of a backoff must be above 0 and not fall, not {first_s} to {most_s}")
        self.until_s = -math.inf
        """No try before, where `failed` is told when; -inf while nothing failed."""
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s
        self._jitter = jitter

    def wait_s(self) -> float:
        """The wait before the next try; each call is one failure more."""
        wait_s = self._next_s
        self._next_s = min(2.0 * wait_s, self._most_s)
        return wait_s * (1.0 - self._jitter() / 2.0)

    def failed(self, now: float) -> None:
        """One failure more, at this time: `until_s` says when to try again."""
        self.until_s = now + self.wait_s()

    def succeeded(self) -> None:
        """The next failure is a first one."""
        self.until_s = -math.inf
        self._next_s = self._first_s
