"""Back-pressure of one transport: who writes waits while its buffer is full. Holds no bytes."""

from __future__ import annotations

import asyncio


class WriteGate:
    """Closed while the transport's buffer is above its high-water mark."""

    __slots__ = ("_waiters", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._waiters: list[asyncio.Future[None]] = []

    def close(self) -> None:
        """The buffer is full."""
        self.closed = True

    def open(self) -> None:
        """The buffer has room again, or the transport is lost, so that nobody waits for nothing."""
        self.closed = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def passed(self) -> None:
        """Return once it is open."""
        while self.closed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
