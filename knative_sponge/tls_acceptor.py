"""Accepts TLS connections, so many handshakes at a time; knows nothing of what is spoken behind them.

A connection has a place of its protocol's only when its handshake is over (`connection_limit`), and until then costs 50 to
90 KiB. An acceptor therefore has places for handshakes, and accepted sockets, which cost next to nothing, wait for one:

- A handshake has `HANDSHAKE_S`, and while others wait, no more than `_PATIENCE_S`.
- Who comes from an address with fewer handshakes than another has waits for none of that one's: its oldest goes.
- Those who wait get their turn by the same order, and where too many wait, the oldest of the address with most goes.

So nobody can push out a client of another address, and many honest clients of one address get their turn one after the
other.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from knative_sponge.process_limits import open_files

logger = logging.getLogger(__name__)

HANDSHAKE_S: Final = 5.0
"""How long a handshake may take."""
MOST_HANDSHAKES: Final = 64
"""Handshakes at a time on one port."""
MOST_WAITING: Final = 192
"""Accepted connections that wait for one."""
_PATIENCE_S: Final = 1.0
_LOOK_S: Final = 0.25
"""How often it is looked whether those that are waited for have had their time."""
_FILES_SHARE: Final = 8
"""One open file in so many may be a connection whose handshake is not over."""
_AT_ONCE: Final = 32
"""Connections that are accepted before the loop turns to something else."""
_REST_S: Final = 1.0
"""As in asyncio: how long nothing is accepted where the system has no file or memory left."""


def handshake_files(files: int) -> int:
    """How many of the open files connections may take whose handshake is not over, on one port."""
    return min(MOST_HANDSHAKES + MOST_WAITING, files // _FILES_SHARE)


class _Newcomer:
    """A connection whose handshake is not over. peer: its address. since_s: when its handshake began."""

    __slots__ = ("begun", "peer", "since_s", "sock", "task")

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.since_s = 0.0
        self.begun = False
        self.task: asyncio.Task[None] | None = None


class TlsAcceptor:
    """What `loop.create_server` is for plain connections. Listens from `start` on.

    listening: is closed by its owner, after `close`. context: may get another certificate at any time.
    connected: makes the protocol of a connection, which is told of it after the handshake.
    """

    def __init__(
        self, listening: socket.socket, context: ssl.SSLContext, connected: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listening = listening
        self._context = context
        self._connected = connected
        self._most = self._most_waiting = 1
        self._under_way: dict[_Newcomer, None] = {}
        self._waiting: dict[_Newcomer, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self, backlog: int) -> None:
        """Accept. backlog: connections that the system keeps until then."""
        self._loop = asyncio.get_running_loop()
        places = max(handshake_files(open_files()), 2)
        self._most = min(MOST_HANDSHAKES, places // 2)
        self._most_waiting = places - self._most
        self._listening.setblocking(False)
        self._listening.listen(backlog)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Accept no more, and end the handshakes that are not over; connections stay."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listening)
        for timer in (self._looking, self._resting):
            if timer is not None:
                timer.cancel()
        for one in list(self._under_way):
            self._end(one)
        while self._waiting:
            self._waiting.popitem()[0].sock.close()

    async def wait_closed(self) -> None:
        """Return when the handshakes have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Who comes.

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, address = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._rest(error)
                return
            sock.setblocking(False)
            self._admit(_Newcomer(sock, str(address[0])))

    def _rest(self, error: OSError) -> None:
        """The system has nothing left for another connection: asking again at once would only keep the loop busy."""
        name = errno.errorcode.get(error.errno or 0, "")
        logger.warning("no connection can be accepted for %.0f s: %s %s", _REST_S, name, error.strerror)
        self._loop.remove_reader(self._listening)
        self._resting = self._loop.call_later(_REST_S, self._loop.add_reader, self._listening, self._accept)
        if self._waiting:
            self._drop_waiting()

    def _admit(self, newcomer: _Newcomer) -> None:
        if len(self._under_way) < self._most:
            self._begin(newcomer)
            return
        largest, count = _largest(self._under_way)
        own = sum(one.peer == newcomer.peer for one in self._under_way)
        if own + 1 < count:
            self._end(_oldest(self._under_way, largest))
            self._begin(newcomer)
            return
        self._waiting[newcomer] = None
        if len(self._waiting) > self._most_waiting:
            self._drop_waiting()
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_S, self._look)

    def _drop_waiting(self) -> None:
        one = _oldest(self._waiting, _largest(self._waiting)[0])
        del self._waiting[one]
        one.sock.close()

    # Handshakes.

    def _begin(self, newcomer: _Newcomer) -> None:
        newcomer.since_s = self._loop.time()
        self._under_way[newcomer] = None
        newcomer.task = task = self._loop.create_task(self._shake_hands(newcomer))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._over, newcomer))

    async def _shake_hands(self, newcomer: _Newcomer) -> None:
        newcomer.begun = True
        try:
            await self._loop.connect_accepted_socket(
                self._connected, newcomer.sock, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError as error:  # no TLS, no common version, too slow, or gone: the loop has closed it
            logger.debug("a handshake with %s failed: %s", newcomer.peer, error)

    def _end(self, newcomer: _Newcomer) -> None:
        """Cut a handshake off."""
        self._under_way.pop(newcomer, None)
        if newcomer.task is not None:
            newcomer.task.cancel()

    def _over(self, newcomer: _Newcomer, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._under_way.pop(newcomer, None)
        if not newcomer.begun:
            newcomer.sock.close()  # ended before the loop has had it
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a handshake cannot be made", exc_info=error)
        self._begin_next()

    def _begin_next(self) -> None:
        """Those who wait get what is free, those from addresses with the fewest handshakes first."""
        while self._waiting and len(self._under_way) < self._most and not self._closed:
            counts = Counter(one.peer for one in self._under_way)
            one = min(self._waiting, key=lambda waiting: counts[waiting.peer])
            del self._waiting[one]
            self._begin(one)

    def _look(self) -> None:
        """End what others have waited for long enough."""
        self._looking = None
        now_s = self._loop.time()
        overdue = [one for one in self._under_way if now_s - one.since_s >= _PATIENCE_S]
        for one in overdue[: len(self._waiting)]:
            self._end(one)
        self._begin_next()
        if self._waiting:
            self._looking = self._loop.call_later(_LOOK_S, self._look)


def _largest(newcomers: Iterable[_Newcomer]) -> tuple[str, int]:
    """The address that has most of them, and how many."""
    return Counter(one.peer for one in newcomers).most_common(1)[0]


def _oldest(newcomers: Iterable[_Newcomer], peer: str) -> _Newcomer:
    """Of an address that has one."""
    return next(one for one in newcomers if one.peer == peer)
