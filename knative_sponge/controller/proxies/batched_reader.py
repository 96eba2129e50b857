"""Reads many sockets that each say a little now and then; what comes within a moment is read in one go. Knows no protocol.

Waking the event loop for each line of thousands of proxies costs several times what the line does. So one epoll watches the
sockets: it is looked at every GATHER_S, or watched by the event loop once there was nothing for REST_S. That does not begin at
once: for an epoll to be watched anew, the kernel walks all that it watches.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Final

GATHER_S: Final = 0.01
REST_S: Final = 0.1
_AT_ONCE: Final = 512
"""Sockets that are read before others in the event loop have their turn."""
_PIECE: Final = 16 * 1024

Taker = Callable[[bytes], None]
"""Told what came; b"" once, when nothing more will come."""


class BatchedReader:
    """The sockets, which stay their owner's to close. Use within one event loop."""

    def __init__(self) -> None:
        self._poll: select.epoll | None = None
        self._sockets: dict[int, tuple[socket.socket, Taker]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._idle_s = 0.0

    def add(self, sock: socket.socket, taker: Taker) -> None:
        """Read this connected, non-blocking socket from now on."""
        if self._poll is None:
            self._poll = select.epoll()
            self._watch()
        self._sockets[sock.fileno()] = sock, taker
        self._poll.register(sock, select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Read it no more; before it is closed."""
        assert self._poll is not None
        del self._sockets[sock.fileno()]
        self._poll.unregister(sock)
        if not self._sockets:
            self._rest()
            self._poll.close()
            self._poll = None

    def _watch(self) -> None:
        assert self._poll is not None
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._gather)

    def _rest(self) -> None:
        assert self._poll is not None
        if self._timer is None:
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
        else:
            self._timer.cancel()
            self._timer = None

    def _gather(self) -> None:
        self._rest()
        self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._read)

    def _read(self) -> None:
        assert self._poll is not None
        ready = self._poll.poll(0, _AT_ONCE)
        self._timer = None
        self._idle_s = 0.0 if ready else self._idle_s + GATHER_S
        if self._idle_s >= REST_S:
            self._watch()
            return
        self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._read)
        for number, _ in ready:
            if (found := self._sockets.get(number)) is None:
                continue  # removed while others were read
            sock, taker = found
            try:
                data = sock.recv(_PIECE)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            taker(data)
