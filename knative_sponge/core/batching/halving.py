"""Which members of a refused batch are tried together again. It sends nothing and looks at no deadline: members go back to
their places in the queue.

A model server that refuses a merged call does not say whose row it disliked. Binary splitting finds k bad ones among n, where
k is small, with about k·(2·log₂(n/4) + 4) calls; one call each takes n. It ends below eight members: halves of four take as
many calls as the four alone. And it ends where many are bad, or the server takes no merged calls: after some refusals in a
row. So a refused batch never takes more than 3n/2 calls.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Final

from knative_sponge.core.batching.work import Work

_EACH: Final = 7
"""Up to so many members of a refused batch go alone."""
_IN_A_ROW: Final = 5
"""After so many refusals of a group, with no merged call accepted between, members go alone. One or two bad ones among many
never cause so many: at most four, then a half of a half is accepted."""
_GROUPS: Final = 64
"""Groups whose refusals are counted. Strangers choose the groups; which of them is forgotten costs some calls at most."""


class Halving:
    """Splits refused batches, and counts the refusals of each group."""

    __slots__ = ("_cohorts", "_in_a_row")

    def __init__(self) -> None:
        self._cohorts = 0
        self._in_a_row: dict[int, int] = {}

    def accepted(self, group: Hashable) -> None:
        """A merged call of the group was not refused."""
        if self._in_a_row:
            self._in_a_row.pop(hash(group), None)

    def split(self, works: Sequence[Work]) -> list[Work]:
        """The members of a refused batch, in order, each with the cohort that it is tried with next."""
        count = len(works)
        if not count:
            return []
        in_a_row = self._count(works[0].group)
        size = 1 if count <= _EACH or in_a_row >= _IN_A_ROW else (count + 1) // 2
        first = self._cohorts + 1
        self._cohorts += -(-count // size)
        return [replace(work, cohort=first + number // size) for number, work in enumerate(works)]

    def _count(self, group: Hashable) -> int:
        """Refusals of the group in a row, this one included. Only its hash is kept: a group may be as large as a head."""
        key = hash(group)
        count = self._in_a_row.pop(key, 0) + 1
        if len(self._in_a_row) >= _GROUPS:
            del self._in_a_row[next(iter(self._in_a_row))]
        self._in_a_row[key] = count
        return count
