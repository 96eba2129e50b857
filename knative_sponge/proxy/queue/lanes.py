"""Which requests may share a call, as small numbers. Counts who is in which lane; knows nothing of requests.

A codec's group may hold a whole head. The batcher compares groups at every decision, so a client could make each decision dear
with large ones. A group is read once, at its request's arrival.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class _Lane:
    number: int
    requests: int = 0


class Lanes:
    """The lanes that any request is in. Nothing is kept of a lane that its last request has left."""

    __slots__ = ("_lanes", "_serial")

    def __init__(self) -> None:
        self._serial = 0
        self._lanes: dict[Hashable, _Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def enter(self, group: Hashable) -> int:
        """The lane of a request of this group: equal for two that are here at once exactly when their groups are."""
        lane = self._lanes.get(group)
        if lane is None:
            self._serial += 1
            lane = self._lanes[group] = _Lane(self._serial)
        lane.requests += 1
        return lane.number

    def leave(self, group: Hashable) -> None:
        """A request of this group is over. Raises KeyError when none was there."""
        lane = self._lanes[group]
        lane.requests -= 1
        if not lane.requests:
            del self._lanes[group]
