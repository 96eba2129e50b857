"""How long to wait before the next try; the waiting itself is the caller's."""

from __future__ import annotations

import random


class Backoff:
    """Doubling waits from `first_s` up to `most_s`, each shortened by up to half at random so that replicas spread out."""

    def __init__(self, rng: random.Random, first_s: float = 0.2, most_s: float = 30.0) -> None:
        if not 0 < first_s <= most_s:
            raise ValueError("a backoff starts above zero and not above its longest wait")
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def wait_s(self) -> float:
        """The wait before the next try, in seconds; each call is one failure more."""
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self._most_s)
        return wait_s * (1 - self._rng.random() / 2)

    def succeeded(self) -> None:
        """The next failure waits `first_s` again."""
        self._next_s = self._first_s
