"""A connection to a port of a pod's own loopback address, through the API server, as `kubectl port-forward` makes it.

It is a WebSocket of Kubernetes' protocol `v4.channel.k8s.io`: the first byte of a message is its channel, 0 for data and 1 for
an error, and the first message of each channel is the port, in two bytes. Nothing of what is sent through it is known here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from knative_sponge.errors import KubeUnreachable

PROTOCOL: Final = "v4.channel.k8s.io"
_DATA: Final = 0
_ERROR: Final = 1
_LARGEST_ERROR: Final = 200
"""Characters of what the other side says that are shown."""


class PortForward:
    """One connection. It is the caller's to close the WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Send bytes to the port. Raises KubeUnreachable."""
        try:
            await self._socket.send_bytes(bytes([_DATA]) + data)
        except (aiohttp.ClientError, OSError) as error:
            raise KubeUnreachable(f"port-forward: {error}") from error

    async def pieces(self) -> AsyncIterator[bytes]:
        """What the port answers, until its end. Raises KubeUnreachable when nobody listens there, or the way breaks."""
        greeted: set[int] = set()
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in greeted:
                greeted.add(channel)
                data = data[2:]
            if channel == _ERROR and data:
                raise KubeUnreachable(f"port-forward: {data.decode(errors='replace')[:_LARGEST_ERROR]}")
            if channel == _DATA and data:
                yield data
