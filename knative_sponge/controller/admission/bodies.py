"""The bodies of reviews, read with bounds of size and time, each of one and all together. What is in them is not looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from knative_sponge.errors import SpongeError

LARGEST_REVIEW: Final = 4 * 2**20
"""Bytes: the API server stores objects of up to 1.5 MiB, and the review of an update has two of them and some fields around."""
_LARGEST_SUM: Final = 16 * LARGEST_REVIEW
"""Bytes of all bodies at once."""
READ_S: Final = 5.0
"""From head to end; an API server gives up after as long."""


class BodyTooLarge(SpongeError):
    """A body is larger than LARGEST_REVIEW."""


class BodiesTooLarge(SpongeError):
    """All bodies together are larger than fits."""


class Bodies:
    """Those that are held at the moment."""

    def __init__(self) -> None:
        self._held = 0

    @asynccontextmanager
    async def one(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A body, counted until the block ends. stream: its pieces. Raises BodyTooLarge, BodiesTooLarge and TimeoutError."""
        body = bytearray()
        try:
            async with asyncio.timeout(READ_S):
                async for piece in stream:
                    body += piece
                    self._held += len(piece)
                    if len(body) > LARGEST_REVIEW:
                        raise BodyTooLarge
                    if self._held > _LARGEST_SUM:
                        raise BodiesTooLarge(f"all reviews together have more than {_LARGEST_SUM} bytes")
            yield bytes(body)
        finally:
            self._held -= len(body)
