"""Tells a client that is gone from one that has only ended its side of the connection; ends no request itself.

Both send a FIN. They differ in what the client's system answers to data that comes after it: an acknowledgement while
the client still reads, a reset when it is gone. So `Exchange.probe` sends something. Where nothing may be sent, TCP's
keep-alive packets bring the reset once that system has forgotten the connection (Linux: after 60 s).
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Final

_KEEPALIVE_S: Final = 10


class Departure:
    """Watches a connection whose client has ended its side and aborts it when the client is gone.

    The loop has stopped reading such a connection, so it would notice a reset only at its second write. An epoll of its
    own, asked for errors alone, tells at once. Raises OSError when the process has no file descriptor left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        connection = transport.get_extra_info("socket")
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            connection.setsockopt(socket.IPPROTO_TCP, option, _KEEPALIVE_S)
        self._epoll = select.epoll()
        self._epoll.register(connection.fileno(), 0)
        loop.add_reader(self._epoll.fileno(), self._look)

    @property
    def over(self) -> bool:
        """There is nothing left to watch for."""
        return self._epoll.closed

    def _look(self) -> None:
        reset = any(events & select.EPOLLERR for _, events in self._epoll.poll(0))
        self.close()
        if reset:  # otherwise both sides have ended in order, and what was said may still be on its way
            self._transport.abort()

    def close(self) -> None:
        """Watch no longer."""
        if not self.over:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
