"""How long a request may take (docs/knative-contract.md §1.8); says nothing about deadlines, which are the batcher's.

Unlike Go's queue-proxy, a timeout in mid-answer cuts the connection instead of ending the body properly, so that nobody
takes the answer for complete, and an unfinished upload does not keep the 504 from its client. As there, a connection
that has switched protocols never counts as moving: whichever limit comes first, counted from arrival, cuts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from knative_sponge.asgi import ASGIApp, Message, Receive, Scope, Send
from knative_sponge.errors import UpstreamTimeout


class Timeouts:
    """ASGI layer: cancels `app` and raises UpstreamTimeout when time is up.

    total_s: from arrival to the end of the answer; 0 refuses everything.
    start_s: from arrival to the first piece of the answer; None is off.
    idle_s: between two pieces of the answer, and before the first; None is off.

    The total is the same for all requests, so they expire in the order they came: one timer serves them all.
    """

    def __init__(self, app: ASGIApp, *, total_s: float, start_s: float | None, idle_s: float | None) -> None:
        if total_s < 0 or (start_s is not None and start_s <= 0) or (idle_s is not None and idle_s <= 0):
            raise ValueError("a timeout cannot be negative")
        self._app = app
        self._total_s = total_s
        self._start_s = start_s
        self._idle_s = idle_s
        self._running: dict[asyncio.Task[None], float | None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._total_s:
            raise UpstreamTimeout("request timeout")
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = loop.time() + self._total_s
        if self._timer is None:
            self._timer = loop.call_later(self._total_s, self._expire)
        progress = None
        if self._start_s is not None or self._idle_s is not None:
            progress = _Progress(loop, send, lambda: self._cancel(task), self._start_s, self._idle_s)
            send = progress.send
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if self._running[task] is None and not task.uncancel():
                raise UpstreamTimeout("request timeout") from None
            raise
        finally:
            del self._running[task]
            if progress is not None:
                progress.stop()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for task, expires_s in self._running.items():
            if expires_s is None:
                continue
            if expires_s > now:
                self._timer = loop.call_at(expires_s, self._expire)
                return
            self._cancel(task)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if self._running[task] is not None:
            self._running[task] = None
            task.cancel()


class _Progress:
    """Watches one answer move."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Send,
        expire: Callable[[], None],
        start_s: float | None,
        idle_s: float | None,
    ) -> None:
        self._loop = loop
        self._send = send
        self._expire = expire
        self._idle_s = idle_s
        self._moved_s: float | None = None
        self._switched = False
        self._start = None if start_s is None else loop.call_later(start_s, self._check_start)
        self._idle = None if idle_s is None else loop.call_later(idle_s, self._check_idle)

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and message["status"] == 101:
            self._switched = True
        elif kind != "http.response.informational" and not self._switched:
            self._moved_s = self._loop.time()
        await self._send(message)

    def stop(self) -> None:
        for timer in (self._start, self._idle):
            if timer is not None:
                timer.cancel()

    def _check_start(self) -> None:
        if self._moved_s is None:
            self._expire()

    def _check_idle(self) -> None:
        assert self._idle_s is not None
        due_s = (self._moved_s or 0.0) + self._idle_s
        if due_s <= self._loop.time():
            self._expire()
        else:
            self._idle = self._loop.call_at(due_s, self._check_idle)
