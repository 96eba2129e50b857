"""How long to wait before the next try; the waiting itself is the caller's."""

from __future__ import annotations

import math
from collections.abc import Callable


class Backoff:
    """Waits after failures in a row: they double, from `first_s` up to `most_s`.

    jitter: gives a number from 0 up to 1 for each failure, as `random.random` does. It shortens each wait by up to half, so
    that many clients that fail together do not try again together. By default waits are not shortened.
    """

    def __init__(self, first_s: float, most_s: float, jitter: Callable[[], float] = lambda: 0.0) -> None:
        if not 0 < first_s <= most_s:
            raise ValueError(f"waits of a backoff must be above 0 and not fall, not {first_s} to {most_s}")
        self.until_s = -math.inf
        """The next try should not come before this time. -inf after a success and before any failure; `failed` sets it."""
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s
        self._jitter = jitter

    def wait_s(self) -> float:
        """The wait before the next try. Each call counts one more failure."""
        wait_s = self._next_s
        self._next_s = min(2.0 * wait_s, self._most_s)
        return wait_s * (1.0 - self._jitter() / 2.0)

    def failed(self, now: float) -> None:
        """Count one more failure, at `now`. `until_s` says when to try again."""
        self.until_s = now + self.wait_s()

    def succeeded(self) -> None:
        """Forget the failures: the next one counts as the first."""
        self.until_s = -math.inf
        self._next_s = self._first_s
