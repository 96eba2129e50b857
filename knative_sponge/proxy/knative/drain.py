"""How the proxy leaves: it serves on until nobody asks any more (docs/knative-contract.md §1.11); stops no server itself."""

from __future__ import annotations

import asyncio
import math
from typing import ClassVar, Final

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.codec.base import Answer
from knative_sponge.proxy.http.plain_answers import deliver, error
from knative_sponge.proxy.knative.node import Node

_DONE: Final = Answer(200, ((b"content-length", b"0"),), b"")
_NOT_YOURS: Final = error(
    403, "the pod does not leave, and only its node and itself may ask it to fail its probes meanwhile"
)
_TOO_MANY: Final = error(503, "too many wait already")


class Drain:
    """How far the proxy's departure has come.

    quiet_s: after so long without an ordinary request none is expected any more; 0 does not wait.
    """

    notice_s: ClassVar[float] = 1.0
    """How long before SIGTERM the preStop hook may come. When no SIGTERM follows, only the model server restarts."""
    rest_s: ClassVar[float] = 10.0
    """After such a notice the next one that makes probes fail is this far off: containers that restart again and again, or
    whoever asks like one, take the pod out of its Service for a second in eleven at most."""

    def __init__(self, quiet_s: float) -> None:
        if quiet_s < 0:
            raise ValueError("quiet_s cannot be negative")
        self.draining = False
        """Probes are refused; ordinary requests are served."""
        self.over = False
        """It has been quiet for long enough: ordinary requests are refused too."""
        self._quiet_s = quiet_s
        self._last_s = 0.0
        self._notice_allowed_s = -math.inf
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

    async def wait(self, *, trusted: bool = True) -> bool:
        """The preStop hook of another container of the pod: return when it may stop. Returns whether the pod leaves.

        Whoever is not trusted waits like the others, so that a hook is kept even where nobody knows the kubelet's address;
        but no probe fails for it.
        """
        loop = asyncio.get_running_loop()
        if trusted and not self.draining and loop.time() >= self._notice_allowed_s:
            self.draining = True
            self._notice_allowed_s = loop.time() + self.notice_s + self.rest_s
            loop.call_later(self.notice_s, self._end_notice)
        try:
            async with asyncio.timeout(self.notice_s):
                await self._terminating.wait()
        except TimeoutError:
            return False
        await self._quiet.wait()
        return True

    def _end_notice(self) -> None:
        self.draining = self._terminating.is_set()


class WaitForDrain:
    """ASGI endpoint of the admin port: `/wait-for-drain`, any method.

    Answers 200 when the caller may stop. One that speaks neither for the node nor for the pod gets 403 when the pod does not
    leave after all; 503 tells that too many wait already.
    """

    most_waiting: ClassVar[int] = 64
    """Of the trusted, and as many of the others: the kubelet calls once for each container."""

    def __init__(self, drain: Drain, node: Node) -> None:
        self._drain = drain
        self._node = node
        self._waiting = {True: 0, False: 0}

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        trusted = self._node.speaks(scope)
        if self._waiting[trusted] >= self.most_waiting:
            await deliver(_TOO_MANY, send)
            return
        self._waiting[trusted] += 1
        try:
            leaves = await self._drain.wait(trusted=trusted)
        finally:
            self._waiting[trusted] -= 1
        await deliver(_DONE if leaves or trusted else _NOT_YOURS, send)
