"""Which nodes need not be divided anew, because all that their last division rested on is as it was. Decides no size. Pure."""

from __future__ import annotations


class UnchangedNodes:
    """rest_s: a node that was found as it was need not be looked at for so many seconds, unless something is told of it."""

    def __init__(self, rest_s: float) -> None:
        if not rest_s >= 0:
            raise ValueError(f"rest_s must not be negative, not {rest_s}")
        self._rest_s = rest_s
        self._standings: dict[str, object] = {}
        self._rests_until_s: dict[str, float] = {}

    def settle(self, node: str, standing: object | None) -> None:
        """The node was divided. standing: what that rests on; None if it has to be divided again whatever that is."""
        self._rests_until_s.pop(node, None)
        if standing is None:
            self._standings.pop(node, None)
        else:
            self._standings[node] = standing

    def holds(self, node: str, standing: object, now: float) -> bool:
        """Is all as it was when the node was divided? now: seconds, never falling."""
        if self._standings.get(node) != standing:
            return False
        self._rests_until_s[node] = now + self._rest_s
        return True

    def rests(self, node: str, now: float) -> bool:
        """Was it found as it was lately?"""
        return now < self._rests_until_s.get(node, now)

    def forget(self, node: str) -> None:
        """It has no pods to divide for, or is gone."""
        self.settle(node, None)
