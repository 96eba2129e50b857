"""How many requests the proxy holds and how many exchanges the model server has at once (docs/knative-contract.md §1.7).

The rule for `containerConcurrency` = cc > 0, for both ways a request can take:

- The proxy holds at most 11·cc requests: cc and 10·cc that wait. A further one is refused at once (`queue-full`), before
  its body is read. Its place is free when its answer has ended, or when its client is gone.
- The model server has at most cc exchanges at once. A request that is passed through is one exchange, to the end of its
  answer, streams and upgraded connections included. A merged call is one exchange too, whatever it carries: cc protects
  the model server from parallel calls, and how large one call may get is what `max-batch` says. If each member held a
  place of its own, cc=1 would silently switch batching off.
- Requests that are passed through wait in the order they came; those for the deadline queue wait there, and only its
  merged calls stand in this line. So `max-inflight` is effective up to cc.

cc does not grow with the cores: a pod that shall take more when it gets larger needs cc=0, where deadlines alone bound
the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final

from knative_sponge.errors import QueueFull

_WAITING_PER_SLOT: Final = 10


class Breaker:
    """Places in the proxy (`admit`, `leave`) and turns at the model server (`async with`). One event loop, no locks.

    concurrency: exchanges with the model server at once, at least 1.
    """

    __slots__ = ("_concurrency", "_line", "admitted", "capacity", "running")

    def __init__(self, concurrency: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self._concurrency = concurrency
        self.capacity = (1 + _WAITING_PER_SLOT) * concurrency
        """Requests that may have a place at once."""
        self._line: deque[asyncio.Future[None]] = deque()
        self.admitted = 0
        """Requests that have a place."""
        self.running = 0
        """Exchanges that have their turn, those just handed on included."""

    def admit(self) -> None:
        """Take a place for one request. Raises QueueFull when all are taken."""
        if self.admitted >= self.capacity:
            raise QueueFull("pending request queue full")
        self.admitted += 1

    def leave(self) -> None:
        """Give an admitted request's place back."""
        self.admitted -= 1

    async def __aenter__(self) -> None:
        """Return when it is this exchange's turn; whoever asked first is first."""
        if self.running < self._concurrency:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the turn had come, and nobody is here to take it
            raise

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1


def breaker_for(container_concurrency: int) -> Breaker | None:
    """The breaker of CONTAINER_CONCURRENCY; None for 0, which is unlimited."""
    return Breaker(container_concurrency) if container_concurrency else None
