"""How much of the event loop the webhook's callers may take, each and together: whoever asks too much waits.

Reviews are answered on the loop on which the leader divides cores, and any pod may send some. Where more is asked than all may
take, the caller that has taken least of late goes first: an API server does not wait for a flood, from however many pods.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from knative_sponge.errors import SpongeError

SHARE: Final = 0.2
"""Of the loop, for one caller. A review of a pod takes less than a millisecond: some 300 pods a second of one API server."""
BURST_S: Final = 1.0
"""What a caller may take at once, when it has been quiet: 1,500 pods."""
SHARE_OF_ALL: Final = 0.5
BURST_OF_ALL_S: Final = 2.0
"""The same for all callers together; more than one of them can use up."""
WAITING: Final = 64
"""Reviews of one caller that wait; an API server gives each up after 5 s."""
WAITING_OF_ALL: Final = 256
_CALLERS: Final = 1024
"""Callers that are remembered; who is forgotten begins with a full credit."""
_GUESS_S: Final = 0.01
"""What a review is taken to take, from its turn until it is told."""
_LOOK_S: Final = 0.05
"""Between two looks at reviews that wait, at most."""
_HALVED_S: Final = 10.0
"""What a caller has taken counts half after so long."""


class BusyCaller(SpongeError):
    """So many reviews wait that another one of this caller would be given up before its turn."""


@dataclass(slots=True, eq=False)
class _Credit:
    """A token bucket of seconds; spent after the fact, so that it may be overdrawn.

    taken_s: seconds taken of late.
    """

    share: float
    burst_s: float
    left_s: float
    at_s: float
    taken_s: float = 0.0
    waiting: int = 0

    def refill(self, now: float) -> None:
        passed_s, self.at_s = now - self.at_s, now
        self.left_s = min(self.burst_s, self.left_s + self.share * passed_s)
        self.taken_s *= 0.5 ** (passed_s / _HALVED_S)

    def spend(self, seconds: float) -> None:
        self.left_s -= seconds
        self.taken_s += seconds


@dataclass(slots=True, eq=False)
class _Review:
    caller: _Credit
    turn: asyncio.Future[None]


class LoopShare:
    """clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = _Credit(SHARE_OF_ALL, BURST_OF_ALL_S, BURST_OF_ALL_S, clock())
        self._callers: OrderedDict[str, _Credit] = OrderedDict()
        self._reviews: list[_Review] = []
        """Those that wait, in the order in which they came."""
        self._giver: asyncio.Task[None] | None = None

    async def turn(self, who: str) -> None:
        """Return when this caller may take some more time; then tell what it took (`spent`). Raises BusyCaller when too many
        reviews wait."""
        caller = self._caller(who)
        self._all.refill(caller.at_s)
        if not self._reviews and caller.left_s > 0 and self._all.left_s > 0:
            self._charge(caller, _GUESS_S)
            return
        if caller.waiting >= WAITING:
            raise BusyCaller(f"{WAITING} reviews of this caller wait")
        review = _Review(caller, asyncio.get_running_loop().create_future())
        self._reviews.append(review)
        caller.waiting += 1
        if len(self._reviews) > WAITING_OF_ALL:
            self._turn_away()
        if self._giver is None or self._giver.done():
            self._giver = asyncio.create_task(self._give())
        try:
            await review.turn
        finally:
            caller.waiting -= 1
            if review in self._reviews:
                self._reviews.remove(review)

    def spent(self, who: str, seconds: float) -> None:
        """A turn of its took so many seconds of the loop."""
        self._charge(self._caller(who), seconds - _GUESS_S)

    def _charge(self, caller: _Credit, seconds: float) -> None:
        caller.spend(seconds)
        self._all.spend(seconds)

    async def _give(self) -> None:
        """Give turns while reviews wait."""
        while self._reviews:
            self._refill()
            lack_s = -self._all.left_s / SHARE_OF_ALL
            ready = [review for review in self._reviews if review.caller.left_s > 0]
            if not ready:
                lack_s = max(lack_s, min(-review.caller.left_s for review in self._reviews) / SHARE)
            elif lack_s < 0:
                best = min(ready, key=lambda review: review.caller.taken_s)
                self._reviews.remove(best)
                self._charge(best.caller, _GUESS_S)
                best.turn.set_result(None)
            await asyncio.sleep(0 if ready and lack_s < 0 else min(max(lack_s, 0.0) + _GUESS_S, _LOOK_S))

    def _refill(self) -> None:
        now = self._clock()
        self._all.refill(now)
        for review in self._reviews:
            review.caller.refill(now)

    def _turn_away(self) -> None:
        self._refill()
        worst = max(reversed(self._reviews), key=lambda review: review.caller.taken_s)
        self._reviews.remove(worst)
        worst.turn.set_exception(BusyCaller(f"{WAITING_OF_ALL} reviews wait"))

    def _caller(self, who: str) -> _Credit:
        now = self._clock()
        caller = self._callers.get(who)
        if caller is None:
            caller = self._callers[who] = _Credit(SHARE, BURST_S, BURST_S, now)
        self._callers.move_to_end(who)
        caller.refill(now)
        while len(self._callers) > _CALLERS:
            self._callers.popitem(last=False)
        return caller
