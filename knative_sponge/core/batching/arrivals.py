"""What has arrived lately: rate, slack, and how dense bursts were. Remembers a bounded window; predicts nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Sequence
from itertools import islice
from typing import Final

from knative_sponge.core.batching.work import Work

URGENT_SHARE: Final = 0.05
"""The slack that this share of requests does not exceed is that of urgent newcomers."""

_KEPT = 4096
"""Most arrivals remembered for slack and curve. At higher rates the latest ones say enough."""
_RECENT = 4096
"""The rate window holds about so many entries at most. Where more arrive, those of one millisecond share an entry."""
_QUANTILE_SAMPLE = 256
"""A quantile of slacks is taken over so many arrivals, the latest."""


class Arrivals:
    """The last arrivals of one queue.

    window_s: how long an arrival is remembered (docs/design.md §4.7: the arrival curve looks at 10 s).
    rate_window_s: over how long the rate is averaged. The rate is for the floor; surges show in the queue at once. In
        simulation a window of 2 s, which holds only a few bursts, took a quarter more cores and missed as many requests.
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
        self._recent_rows += rows
        recent = self._recent
        if len(recent) >= _RECENT:
            self.rate(now)
        if len(recent) >= _RECENT and now - recent[-1][0] < self._rate_window_s / _RECENT:
            recent[-1] = recent[-1][0], recent[-1][1] + rows
        else:
            recent.append((now, rows))
        self._forget(now)

    def rate(self, now: float) -> float:
        """Rows per second over the rate window. At first the window is the time since the first arrival, at least 1 s."""
        if self._since_s is None:
            return 0.0
        recent = self._recent
        oldest = now - self._rate_window_s
        while recent and recent[0][0] <= oldest:
            self._recent_rows -= recent.popleft()[1]
        return self._recent_rows / min(self._rate_window_s, max(now - self._since_s, 1.0))

    def slack_s(self, share: float) -> float | None:
        """The slack that `share` of the latest arrivals did not exceed, seconds; None before any arrival."""
        if not self._slacks:
            return None
        latest = sorted(islice(reversed(self._slacks), _QUANTILE_SAMPLE))
        return latest[min(int(share * len(latest)), len(latest) - 1)]

    def mean_rows(self) -> float:
        """Mean rows of a request in the window; 1 before any arrival."""
        return sum(self._rows) / len(self._rows) if self._rows else 1.0

    def newcomer(self, now: float, share: float, group: Hashable) -> Work | None:
        """An average request of this group that comes just now, with `slack_s(share)`; None where none can be expected."""
        slack_s = self.slack_s(share)
        if slack_s is None or self.rate(now) == 0:
            return None
        return Work(key=-1, deadline_s=now + slack_s, rows=max(1, round(self.mean_rows())), group=group)

    def curve(self, now: float, counts: Sequence[int]) -> list[float]:
        """For each count k: the shortest time in the window within which k more requests followed one, seconds; inf if never.

        That is the time between the first and the last of k + 1 consecutive arrivals. The k-th arrival after one that comes
        just now is unlikely to come sooner (docs/design.md §4.7).
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
