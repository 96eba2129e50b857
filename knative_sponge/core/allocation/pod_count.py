"""How the pod count follows what `core/allocation/fleet.py` finds: up after seconds, down after a minute, never by more
than a factor of
two. A pod costs seconds to start and loses its queue's company when it goes; sizes follow the load in the meantime."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CountRules:
    """Seconds. grow_s: more pods must have been asked for so long. shrink_s: fewer must have been enough so long."""

    grow_s: float = 10.0
    shrink_s: float = 60.0

    def __post_init__(self) -> None:
        if not (self.grow_s >= 0.0 and self.shrink_s >= 0.0):
            raise ValueError(f"impossible rules of a pod count: {self}")


class PodCount:
    """The pod count of one revision over time.

    pods: those that it has when this begins; at least one.
    """

    __slots__ = ("_above", "_below", "_changed_s", "_rules", "pods")

    def __init__(self, pods: int, rules: CountRules | None = None) -> None:
        if pods < 1:
            raise ValueError(f"there must be at least one pod, not {pods}")
        self.pods = pods
        """The count to have now."""
        self._rules = rules or CountRules()
        self._above = _Streak(-1)
        self._below = _Streak(1)
        self._changed_s: float | None = None

    def update(self, needed: int, spared: int, short: bool, now: float) -> int:
        """The count from now on.

        needed: pods that carry the load best. spared: the same for the load and a fifth more; only fewer than that many
        are too many. short: a pod wants more cores than its node can give, so that growing in place is at its end; a pod is
        added at once, and another when that did not help for `grow_s`, up to twice `needed`: on a full cluster more pods only
        take cores from each other. now: monotonic seconds, never falling.
        """
        rules = self._rules
        pods = self.pods
        grown = self._above.told(needed, needed > pods, rules.grow_s, now)
        shrunk = self._below.told(max(needed, spared), max(needed, spared) < pods and not short, rules.shrink_s, now)
        settled = self._changed_s is None or now - self._changed_s >= rules.grow_s
        if short and settled and pods < 2 * needed:
            self._set(min(max(needed, pods + 1), 2 * pods), now)
        elif grown is not None:
            self._set(min(grown, 2 * pods), now)
        elif shrunk is not None:
            self._set(max(shrunk, (pods + 1) // 2), now)
        return self.pods

    def _set(self, pods: int, now: float) -> None:
        self.pods = pods
        self._changed_s = now
        self._above = _Streak(-1)
        self._below = _Streak(1)


class _Streak:
    """Answers of one kind without a break, and the most careful of them. sign: 1 keeps the largest, -1 the smallest."""

    __slots__ = ("_best", "_sign", "_since_s")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._since_s: float | None = None
        self._best = 0

    def told(self, value: int, holds: bool, wait_s: float, now: float) -> int | None:
        """The most careful value once the streak is `wait_s` old."""
        if not holds:
            self._since_s = None
            return None
        if self._since_s is None:
            self._since_s, self._best = now, value
        elif (value - self._best) * self._sign > 0:
            self._best = value
        return self._best if now - self._since_s >= wait_s else None
