"""How the proxy leaves: it serves on until nobody asks any more (docs/knative-contract.md §1.11); stops no server itself."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.codec.base import Answer
from knative_sponge.proxy.http.plain_answers import deliver


class Drain:
    """How far the proxy's departure has come.

    quiet_s: after so long without an ordinary request none is expected any more; 0 does not wait.
    """

    notice_s: ClassVar[float] = 1.0
    """How long before SIGTERM the preStop hook may come. When no SIGTERM follows, only the model server restarts."""

    def __init__(self, quiet_s: float) -> None:
        if quiet_s < 0:
            raise ValueError("quiet_s cannot be negative")
        self.draining = False
        """Probes are refused; ordinary requests are served."""
        self.over = False
        """It has been quiet for long enough: ordinary requests are refused too."""
        self._quiet_s = quiet_s
        self._last_s = 0.0
        self._terminating = asyncio.Event()
        self._quiet = asyncio.Event()

    def touch(self) -> None:
        """An ordinary request came."""
        self._last_s = asyncio.get_running_loop().time()

    async def terminate(self) -> None:
        """SIGTERM came: return once it has been quiet for long enough."""
        loop = asyncio.get_running_loop()
        self.draining = True
        self._terminating.set()
        self._last_s = loop.time()
        # Not polling: each turn sleeps to the earliest possible end, which requests have moved meanwhile.
        while (left_s := self._last_s + self._quiet_s - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)
        self.over = True
        self._quiet.set()

    async def wait(self) -> None:
        """The preStop hook of another container of the pod: return when it may stop."""
        self.draining = True
        try:
            async with asyncio.timeout(self.notice_s):
                await self._terminating.wait()
        except TimeoutError:
            self.draining = self._terminating.is_set()
            return
        await self._quiet.wait()


class WaitForDrain:
    """ASGI endpoint of the admin port: `/wait-for-drain`, any method."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self._drain.wait()
        await deliver(Answer(200, ((b"content-length", b"0"),), b""), send)
