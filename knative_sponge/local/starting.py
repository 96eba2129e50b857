"""The wait for a program that was started: until it shows the sign that is wanted, ends, or takes too long; starts nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from knative_sponge.local.process import ChildTree, ServiceError
from knative_sponge.local.readiness import Answer

ACCEPT: Final = "did not accept a connection"
_LONG_S: Final = 3.0


class ReadyWait:
    """What people hear while a server loads: once, when it takes a while."""

    def __init__(self, port: int, say: Callable[[str], None]) -> None:
        self.last = "it was not asked"
        self._port = port
        self._say = say
        self._since_s = time.monotonic()
        self._said = False

    def heard(self, path: str, answer: Answer) -> None:
        self.last = f"GET {path} on port {self._port} {answer}"
        if not self._said and time.monotonic() - self._since_s > _LONG_S:
            self._said = True
            self._say(f"waiting for the model: {self.last}")


_T = TypeVar("_T")


async def up(
    what: str,
    child: ChildTree,
    coming: Coroutine[Any, Any, _T],
    timeout_s: float,
    failure: Callable[[], str],
    sign: str = "accepted a connection",
) -> _T:
    """The result of `coming`, which waits for a sign of the child.

    Raises ServiceError when the child ends before, or when the time is over. failure: says what it then did not do.
    sign: what a child that ended had not done.
    """
    came, ended = asyncio.ensure_future(coming), asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait({came, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            status = ended.result()
            raise ServiceError(ended_how(f"before it {sign}, {what}", status, child), status=status)
        if not came.done():
            raise ServiceError(f"{what} {failure()}{_lines(child)}")
        return came.result()
    finally:
        came.cancel()
        ended.cancel()
        await asyncio.wait({came, ended})


def ended_how(what: str, status: int, child: ChildTree) -> str:
    how = f"by signal {status - 128}" if status > 128 else f"with status {status}"
    return f"{what} ended {how}{_lines(child)}"


def _lines(child: ChildTree) -> str:
    lines = child.last_lines()
    return f"; its last lines:\n{lines}\n" if lines else ""
