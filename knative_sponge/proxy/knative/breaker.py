"""How many requests the proxy holds and how many exchanges the model server has at once (docs/knative-contract.md §1.7).

The rule for `containerConcurrency` = cc > 0, for both ways a request can take:

- The proxy holds at most 11·cc requests: cc in progress and 10·cc pending. A further one is refused at once
  (`queue-full`), before its body is read. A request is held until its answer has ended or its client is gone.
- There are cc slots for exchanges with the model server. A request that is passed through takes one to the end of its
  answer, streams and upgraded connections included. A merged call takes one too, whatever it carries: cc protects the
  model server from parallel calls, and `max-batch` says how large one call may get. If each member of a batch took a
  slot, cc=1 would silently switch batching off.
- Requests that are passed through wait for a slot in the order they came. Inference requests wait in the deadline queue,
  and only its merged calls wait for a slot. So `max-inflight` is effective up to cc.

cc does not grow with the cores. A pod that shall take more requests when it gets larger needs cc=0: deadlines alone bound
its queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final

from knative_sponge.errors import QueueFull

_WAITING_PER_SLOT: Final = 10


class Breaker:
    """Requests held by the proxy (`admit`, `leave`) and slots at the model server (`async with`). One event loop, no locks.

    concurrency: exchanges with the model server at once, at least 1.
    """

    __slots__ = ("_concurrency", "_line", "admitted", "capacity", "running")

    def __init__(self, concurrency: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self._concurrency = concurrency
        self.capacity = (1 + _WAITING_PER_SLOT) * concurrency
        """Requests that may be held at once."""
        self._line: deque[asyncio.Future[None]] = deque()
        self.admitted = 0
        """Requests that are held, in progress or pending."""
        self.running = 0
        """Slots that are taken; a slot that was just passed on to the next in line is one of them."""

    def admit(self) -> None:
        """Hold one more request. Raises QueueFull when as many are held as may be."""
        if self.admitted >= self.capacity:
            raise QueueFull("pending request queue full")
        self.admitted += 1

    def leave(self) -> None:
        """An admitted request is over."""
        self.admitted -= 1

    async def __aenter__(self) -> None:
        """Take a slot, when one is free; whoever asked first is first."""
        if self.running < self._concurrency:
            self.running += 1
            return
        slot = asyncio.get_running_loop().create_future()
        self._line.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self._pass_on()  # the slot was passed on to an exchange that is cancelled
            raise

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while self._line:
            slot = self._line.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self.running -= 1


def breaker_for(container_concurrency: int) -> Breaker | None:
    """The breaker of CONTAINER_CONCURRENCY; None for 0, which is unlimited."""
    return Breaker(container_concurrency) if container_concurrency else None
