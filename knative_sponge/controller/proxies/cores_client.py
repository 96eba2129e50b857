"""Tells a proxy its size (docs/design.md §5.2, `PUT /sponge/v1/cores`); whether it heard is all that is known afterwards.

A new leader tells every pod at once, and a surge many of them: a call is a connection and one line back, no more.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Final, cast

from knative_sponge.controller.proxies.demand_streams import ADMIN_PORT, Address, bracketed
from knative_sponge.core.quantity import format_cores

_log: Final = logging.getLogger(__name__)

_REPLY_S: Final = 0.5
"""A proxy answers at once, or not at all; a shrink waits for it, and its node's other pods for the shrink."""
_AT_ONCE: Final = 64
"""Calls under way. More of them would run out of time together when all pods have to be told."""
_LONGEST_LINE: Final = 1024


class CoresClient:
    """All calls, each on a connection of its own: a pod hears of its size now and then only."""

    def __init__(self, port: int = ADMIN_PORT) -> None:
        self._port = port
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def tell(self, to: Address, phase: str, cores: float, reach: float) -> bool:
        """Did the proxy take it?

        phase: `patched`, `actuated`. reach: the most cores that one resize could give the pod on its node now.
        """
        body = json.dumps({"cores": round(cores, 3), "phase": phase, "reach": round(max(reach, cores), 3)})
        fields = f"host: {bracketed(to.ip)}:{self._port}\r\nauthorization: Bearer {to.token}\r\nconnection: close\r\n"
        head = f"PUT /sponge/v1/cores HTTP/1.1\r\n{fields}content-type: application/json\r\ncontent-length: {len(body)}"
        loop = asyncio.get_running_loop()
        async with self._places:
            transport: asyncio.Transport | None = None
            try:
                async with asyncio.timeout(_REPLY_S):
                    transport, call = await loop.create_connection(
                        lambda: _Call(f"{head}\r\n\r\n{body}".encode()), to.ip, self._port
                    )
                    status = await call.status
            except (OSError, TimeoutError, ValueError) as error:
                _log.debug("%s was not told %s %s: %s", to.ip, phase, format_cores(cores), error)
                return False
            finally:
                if transport is not None:
                    transport.abort()
        if status != 204:
            _log.warning("%s did not take %s %s: %d", to.ip, phase, format_cores(cores), status)
        return status == 204


class _Call(asyncio.Protocol):
    """One request, and the status of its answer. What comes after the first line is not read."""

    def __init__(self, request: bytes) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """ValueError for what is no HTTP, ConnectionError when none came."""
        self._request = request
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is no instance of it
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        line, newline, _ = self._received.partition(b"\r\n")
        if self.status.done() or not (newline or len(self._received) > _LONGEST_LINE):
            return
        version, _, rest = line.partition(b" ")
        if version in (b"HTTP/1.1", b"HTTP/1.0") and rest[:3].isdigit():
            self.status.set_result(int(rest[:3]))
        else:
            self.status.set_exception(ValueError("this is no HTTP"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.status.done():
            self.status.set_exception(ConnectionResetError(str(error or "closed without an answer")))
            self.status.exception()  # whoever has given up does not ask for it
