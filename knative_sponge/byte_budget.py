"""One sum of bytes for everything that strangers make a process hold. Holds no bytes, reads no clock, refuses no request.

Why the process always gets on: nobody waits for room. Who asks for more than is left is refused, gives back all that it
has, and so makes room for another; two halves of requests can therefore never wait for each other. What a body will need
on its way is taken when its length is known, before it is read, so that what was admitted is not refused half-way. A
chunked body takes as it grows. What is on its way out (answers, and what is passed through) may use the part that is kept
back from bodies: it frees more than it takes.

Who holds room for long and does nothing with it is told to leave when somebody is refused: see `Holder`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, Protocol, Self

from knative_sponge.errors import QueueFull

DEFAULT: Final = 512 * 2**20
_KEPT_BACK: Final = 4
"""One part in so many is kept back from bodies."""
_LOOKS: Final = 16
"""Holders that are looked at for each refusal."""
_RETRY_AFTER_S: Final = 1


class Holder(Protocol):
    """Who holds room and depends on somebody else's speed: a body that is still coming, an answer that nobody reads."""

    def leave_if_slow(self) -> bool:
        """Give up if it has moved too little. What it holds is given back soon, maybe not at once."""
        ...


class ByteBudget:
    """Room for `limit` bytes. What is taken with `urgent` may use all of it, the rest three quarters.

    on_refusal: called whenever there is no room.
    """

    __slots__ = ("_bodies", "_holders", "_on_refusal", "limit", "taken")

    def __init__(self, limit: int = DEFAULT, on_refusal: Callable[[], None] = lambda: None) -> None:
        if limit < 1:
            raise ValueError(f"a budget has at least 1 byte, not {limit}")
        self.limit = limit
        self.taken = 0
        """Bytes that are held now."""
        self._bodies = limit - limit // _KEPT_BACK
        self._on_refusal = on_refusal
        self._holders: dict[Holder, None] = {}

    @property
    def largest(self) -> int:
        """The most that one body can take."""
        return self._bodies

    def take(self, size: int, *, urgent: bool = False) -> bool:
        """Take room for `size` bytes, if there is that much; whoever took them gives them back."""
        if self.taken + size > (self.limit if urgent else self._bodies):
            self._on_refusal()
            for holder in list(itertools.islice(self._holders, _LOOKS)):
                if holder.leave_if_slow():
                    break
            return False
        self.taken += size
        return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.taken -= size
        assert self.taken >= 0, "more was given back than was taken"

    def watch(self, holder: Holder) -> None:
        """Ask it to leave when there is no room, the longest known first."""
        self._holders[holder] = None

    def unwatch(self, holder: Holder) -> None:
        """It is done; nothing when it was not watched."""
        self._holders.pop(holder, None)

    def claim(self) -> Claim:
        """A part of the budget for one purpose, empty yet. Its maker has to `release` it."""
        return Claim(self)


class Claim:
    """What one request or one call holds. It has an owner for each `keep`, its maker the first; the last one's `release`
    gives everything back."""

    __slots__ = ("_budget", "_owners", "size")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._owners = 1
        self.size = 0
        """Bytes it holds."""

    def resize(self, size: int, *, urgent: bool = False) -> None:
        """Hold so much. Raises QueueFull, and holds what it held, when there is not that much room."""
        more = size - self.size
        if more > 0 and not self._budget.take(more, urgent=urgent):
            raise no_room(more)
        if more < 0:
            self._budget.give(-more)
        self.size = size

    @property
    def shared(self) -> bool:
        """Whether it has more than one owner."""
        return self._owners > 1

    def keep(self) -> Self:
        """One more owner."""
        self._owners += 1
        return self

    def release(self) -> None:
        """One owner less."""
        self._owners -= 1
        if not self._owners:
            self._budget.give(self.size)
            self.size = 0


def no_room(size: int) -> QueueFull:
    """Why there was none for `size` bytes."""
    return QueueFull(f"the queue-proxy has no memory left for {size} bytes more", retry_after_s=_RETRY_AFTER_S)
