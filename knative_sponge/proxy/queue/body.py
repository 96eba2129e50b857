"""Reads a request's whole body into memory, up to a limit; only requests for the queue are read like this."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from knative_sponge.asgi import Message, Receive, Scope
from knative_sponge.byte_budget import ByteBudget, Claim, no_room
from knative_sponge.errors import BadRequest

_MOST_DIGITS: Final = 18
"""Of a length that is read: Python's time for an integer grows with the square of its digits."""
COPIES: Final = 3
"""Bytes that each byte of a body costs at most on its way: as it came, in pieces and as one; as rows; in the merged call."""
_PATIENCE_S: Final = 1.0
_LEAST_RATE: Final = 64 * 1024
"""Bytes per second. A body that comes more slowly, for longer than the patience, goes when there is no memory for others."""


async def read_body(
    scope: Scope, receive: Receive, limit: int, claim: Claim, budget: ByteBudget, time_s: Callable[[], float]
) -> bytes | None:
    """The whole body; None when the client went away.

    limit: bytes. claim: is grown, before the body is read where its length is known, to what the request will need.
    time_s: how long the body may take, asked for when it is not here already. Raises BadRequest(413) above the limit,
    QueueFull when there is no room for it, TimeoutError.
    """
    expected = 0
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            expected = int(value[:_MOST_DIGITS])
    if expected > limit:
        raise BadRequest(f"the body has {expected} bytes; max-body allows {limit}", status=413)
    claim.resize(COPIES * expected)
    first = await receive() if scope["sponge.arrived"]() else None
    if first is not None and first["type"] == "http.request" and not first.get("more_body", False):
        body: bytes = first.get("body", b"")
        _check(len(body), limit)
        claim.resize(COPIES * len(body))
        return body
    incoming = _Incoming(limit, claim)
    budget.watch(incoming)
    try:
        return await incoming.read(first, receive, time_s())
    finally:
        budget.unwatch(incoming)


class _Incoming:
    """A body that is still coming."""

    def __init__(self, limit: int, claim: Claim) -> None:
        self._limit = limit
        self._claim = claim
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self._timer = asyncio.timeout(None)
        self._size = 0
        self._unwelcome = False

    async def read(self, message: Message | None, receive: Receive, time_s: float) -> bytes | None:
        chunks: list[bytes] = []
        try:
            async with self._timer:
                self._timer.reschedule(self._begun_s + max(time_s, 0.0))
                while True:
                    if message is None:
                        message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk: bytes = message.get("body", b"")
                    self._size += len(chunk)
                    _check(self._size, self._limit)
                    if COPIES * self._size > self._claim.size:
                        self._claim.resize(COPIES * self._size)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                    message = None
        except TimeoutError:
            if self._unwelcome:
                raise no_room(self._claim.size) from None
            raise

    def leave_if_slow(self) -> bool:
        """See `byte_budget.Holder`."""
        age_s = self._loop.time() - self._begun_s
        if self._timer.expired() or age_s < _PATIENCE_S or self._size >= _LEAST_RATE * age_s:
            return False
        self._unwelcome = True
        self._timer.reschedule(self._loop.time())
        return True


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise BadRequest(f"the body is larger; max-body allows {limit}", status=413)
