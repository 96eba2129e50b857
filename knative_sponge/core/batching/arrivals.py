"""What has been arriving: rate, slack, and how dense a burst can be. Remembers a bounded window; predicts nothing itself."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice

_KEPT = 4096
"""Arrivals remembered at most for slack and curve; at a rate that exceeds it, the latest are plenty."""
_RECENT = 4096
"""The rate window is cleaned when it holds more than this and nobody asked for the rate meanwhile."""
_QUANTILE_SAMPLE = 256
"""Slacks looked at for a quantile: the latest ones."""


class Arrivals:
    """The last arrivals of one queue.

    window_s: how long an arrival is remembered (docs/design.md §4.7: the arrival curve looks at 10 s).
    rate_window_s: over how long the rate is averaged. Surges are seen in the queue at once; the rate is for the floor, and a
    window of a few bursts only (2 s) asked for a quarter more cores in simulation without losing fewer requests.
    """

    __slots__ = ("_rate_window_s", "_recent", "_recent_rows", "_rows", "_since_s", "_slacks", "_times", "_window_s")

    def __init__(self, window_s: float = 10.0, rate_window_s: float = 5.0) -> None:
        if not 0 < rate_window_s <= window_s:
            raise ValueError(f"rate_window_s {rate_window_s} must be above 0 and at most window_s {window_s}")
        self._window_s = window_s
        self._rate_window_s = rate_window_s
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._rows: deque[int] = deque(maxlen=_KEPT)
        self._slacks: deque[float] = deque(maxlen=_KEPT)
        self._recent: deque[tuple[float, int]] = deque()
        self._recent_rows = 0
        self._since_s: float | None = None

    def add(self, now: float, rows: int, slack_s: float) -> None:
        """A request of `rows` rows arrived with `slack_s` left until its deadline."""
        if self._since_s is None:
            self._since_s = now
        self._times.append(now)
        self._rows.append(rows)
        self._slacks.append(slack_s)
        self._recent.append((now, rows))
        self._recent_rows += rows
        if len(self._recent) > _RECENT:
            self.rate(now)
        self._forget(now)

    def rate(self, now: float) -> float:
        """Rows per second over the rate window; over what has been seen while that is shorter, but never under 1 s."""
        if self._since_s is None:
            return 0.0
        recent = self._recent
        oldest = now - self._rate_window_s
        while recent and recent[0][0] <= oldest:
            self._recent_rows -= recent.popleft()[1]
        return self._recent_rows / min(self._rate_window_s, max(now - self._since_s, 1.0))

    def slack_s(self, share: float) -> float | None:
        """The slack that this share of the latest arrivals had at most; None before any arrival."""
        if not self._slacks:
            return None
        latest = sorted(islice(reversed(self._slacks), _QUANTILE_SAMPLE))
        return latest[min(int(share * len(latest)), len(latest) - 1)]

    def mean_rows(self) -> float:
        """Mean rows of a request in the window; 1 before any arrival."""
        return sum(self._rows) / len(self._rows) if self._rows else 1.0

    def curve(self, now: float, counts: Sequence[int]) -> list[float]:
        """For each count k: the shortest span in the window within which k requests arrived, seconds; inf if never.

        The k-th next arrival is unlikely to come sooner than that (docs/design.md §4.7). Spans are those between
        the first and the last of k + 1 consecutive arrivals, so that curve[k] counts from an arrival seen just now.
        """
        self._forget(now)
        times = list(self._times)
        spans = []
        for count in counts:
            gaps = (later - earlier for earlier, later in zip(times, times[count:], strict=False))
            spans.append(min(gaps, default=math.inf))
        return spans

    def _forget(self, now: float) -> None:
        oldest = now - self._window_s
        while self._times and self._times[0] < oldest:
            self._times.popleft()
            self._rows.popleft()
            self._slacks.popleft()
