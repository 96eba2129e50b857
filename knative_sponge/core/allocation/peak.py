"""The largest value of a sliding window; knows no clock: `now` comes in and never goes back."""

from __future__ import annotations

from collections import deque


class Peak:
    """Maximum over the last `window_s` seconds, O(1) on average: a value is forgotten once a later one is as large."""

    __slots__ = ("_values", "window_s")

    def __init__(self, window_s: float) -> None:
        if not window_s >= 0:
            raise ValueError(f"window_s must not be negative, not {window_s}")
        self.window_s = window_s
        """May be changed. A longer window does not bring back what a shorter one forgot."""
        self._values: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float) -> float:
        """Count `value` and return the largest of the window, this one included."""
        values = self._values
        while values and values[-1][1] <= value:
            values.pop()
        values.append((now, value))
        while values[0][0] < now - self.window_s:
            values.popleft()
        return values[0][1]
