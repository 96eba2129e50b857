"""How the pod count follows what `core/allocation/fleet.py` finds: up after seconds, down after a minute, at most by a
factor of two.

A new pod takes seconds to start, and a pod that goes leaves smaller batches behind. In the meantime the sizes of the pods
follow the load.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CountRules:
    """Seconds. grow_s: more pods must have been needed for so long. shrink_s: fewer must have been enough for so long."""

    grow_s: float = 10.0
    shrink_s: float = 60.0

    def __post_init__(self) -> None:
        if not (self.grow_s >= 0.0 and self.shrink_s >= 0.0):
            raise ValueError(f"impossible rules of a pod count: {self}")


class PodCount:
    """The pod count of one revision over time. pods: how many it has at the start; at least one."""

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

    def update(self, needed: int, needed_with_reserve: int, short: bool, now: float) -> int:
        """The count from now on.

        needed: pods that carry the load best. needed_with_reserve: pods that carry the load and a fifth more best; a shrink
        goes no further. short: a pod wants more cores than its node can give, so growing in place is at its end. A pod is
        then added at once, and one more after each `grow_s` in which that did not help, up to twice `needed`: on a full
        cluster more pods only take cores from each other. now: monotonic seconds, never falling.
        """
        rules = self._rules
        pods = self.pods
        grown = self._above.update(needed, needed > pods, rules.grow_s, now)
        kept = max(needed, needed_with_reserve)
        shrunk = self._below.update(kept, kept < pods and not short, rules.shrink_s, now)
        waited = self._changed_s is None or now - self._changed_s >= rules.grow_s
        if short and waited and pods < 2 * needed:
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
    """An unbroken run of answers that hold, and the most careful one of it. sign: 1 keeps the largest, -1 the smallest."""

    __slots__ = ("_best", "_sign", "_since_s")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._since_s: float | None = None
        self._best = 0

    def update(self, value: int, holds: bool, wait_s: float, now: float) -> int | None:
        """The most careful value once the run is `wait_s` old; None before."""
        if not holds:
            self._since_s = None
            return None
        if self._since_s is None:
            self._since_s, self._best = now, value
        elif (value - self._best) * self._sign > 0:
            self._best = value
        return self._best if now - self._since_s >= wait_s else None
