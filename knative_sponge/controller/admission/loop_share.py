"""How much of the event loop one caller of the webhook may take: whoever asks too much waits, and nobody else does.

Reviews are answered on the loop on which the leader divides cores, and any pod may send some.
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
_WAITING: Final = 64
"""Reviews of one caller that wait; an API server gives each up after 5 s."""
_CALLERS: Final = 1024
"""Callers that are remembered; who is forgotten begins with a full credit."""
_GRAIN_S: Final = 0.01


class BusyCaller(SpongeError):
    """So many reviews of this caller wait that another one would be given up before its turn."""


@dataclass(slots=True)
class _Caller:
    credit_s: float
    at_s: float
    waiting: int = 0


class LoopShare:
    """clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._callers: OrderedDict[str, _Caller] = OrderedDict()

    async def turn(self, who: str) -> None:
        """Return when this caller may take some more time. Raises BusyCaller at once when too many of its reviews wait."""
        caller = self._caller(who)
        if caller.credit_s > 0:
            return
        if caller.waiting >= _WAITING:
            raise BusyCaller(f"{_WAITING} reviews of this caller wait")
        caller.waiting += 1
        try:
            while True:
                await asyncio.sleep(_GRAIN_S - caller.credit_s / SHARE)
                if self._caller(who).credit_s > 0:  # others of the same caller may have had a turn meanwhile
                    return
        finally:
            caller.waiting -= 1

    def spent(self, who: str, seconds: float) -> None:
        """It took so many seconds of the loop."""
        self._caller(who).credit_s -= seconds

    def _caller(self, who: str) -> _Caller:
        now = self._clock()
        caller = self._callers.get(who)
        if caller is None:
            caller = self._callers[who] = _Caller(BURST_S, now)
        self._callers.move_to_end(who)
        caller.credit_s = min(BURST_S, caller.credit_s + SHARE * (now - caller.at_s))
        caller.at_s = now
        while len(self._callers) > _CALLERS:
            self._callers.popitem(last=False)
        return caller
