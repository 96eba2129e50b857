"""One thread for the work on a giant request or answer, so that the event loop goes on. Knows no request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from knative_sponge.errors import Draining

P = ParamSpec("P")
T = TypeVar("T")

LONG_S: Final = 0.02
"""What may take longer than this is worth a thread: a probe that waits for it, and for a few like it, is in time still."""


class Worker:
    """Runs one function at a time, in the order asked. The thread starts with the first one.

    There is one thread only: more would share the interpreter with the loop, and giants are to wait for each other, not to
    slow down everybody.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="giant")
        self._closed = False

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises; Draining once this is closed.

        Cancelling takes the work back unless it runs already; then its end is of no interest.
        """
        done = asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))
        try:
            await asyncio.wait((done,))
        except asyncio.CancelledError:
            done.cancel()
            raise
        if done.cancelled() or (self._closed and done.exception() is None):
            raise Draining("the queue-proxy is shutting down")
        return done.result()

    def close(self) -> None:
        """Take back all that does not run yet; whoever waits for it is told."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
