"""On which TCP port a model server listens: the one that it was told, or else the one that its processes opened.

It reads /proc and asks over HTTP; it starts nothing and changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.procfs import computing, descendants
from knative_sponge.local.ports import accepts
from knative_sponge.local.readiness import Verdict, ask, look

_LISTEN: Final = "0A"
"""TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)."""
_RETRY_S: Final = 0.02
_LOOK_S: Final = 0.5
"""A look reads a directory of each process below."""
_TELLS_S: Final = 2.0
_SPEAKS_S: Final = 8.0
"""Another port than the expected one is taken after so long without a change, if it says whether it is ready, or if it only
speaks HTTP: a server may open several ports one by one, some of them with pages about itself."""
_ASK_AGAIN_S: Final = 2.0


def listening(root: int, proc: Path = Path("/proc")) -> frozenset[int]:
    """TCP ports on which processes below `root` listen, those excepted that only another network namespace can reach."""
    inodes = dict(_listeners(proc))
    found: set[int] = set()
    for process in descendants(root):
        folder = proc / str(process.pid) / "fd"
        try:
            names = os.listdir(folder)
        except OSError:  # gone, or another user's
            continue
        for name in names:
            try:
                target = os.readlink(folder / name)
            except OSError:
                continue
            if target.startswith("socket:["):
                port = inodes.get(target[8:-1])
                if port is not None:
                    found.add(port)
    return frozenset(found)


def _listeners(proc: Path) -> Iterator[tuple[str, int]]:
    """(inode of the socket, port) of every TCP socket that listens in this network namespace."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for line in lines:
            words = line.split()
            if words[3] == _LISTEN:
                yield words[9], int(words[1].rpartition(":")[2], 16)


class _Rest:
    """Since when a server's ports have been the same while it seldom computed. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ports: frozenset[int] = frozenset()
        self._since_s = self._ask_s = 0.0
        self._looks = self._busy = 0

    def saw(self, now: float, ports: frozenset[int], *, busy: bool) -> None:
        """One look. A server that computes in most of them is still loading, and may yet open the expected port."""
        self._looks += 1
        self._busy += busy
        if ports != self._ports or 2 * self._busy > self._looks:
            self._ports, self._since_s, self._ask_s = ports, now, now + _TELLS_S
            self._looks = self._busy = 0

    def length_s(self, now: float) -> float:
        return now - self._since_s

    def asks(self, now: float) -> bool:
        """Whether it is time to ask the ports what they are."""
        if now < self._ask_s:
            return False
        self._ask_s = max(now + _ASK_AGAIN_S, self._since_s + _SPEAKS_S)
        return True


@dataclass(frozen=True, slots=True)
class PortSearch:
    """expected: the port that the server was told. root: the guardian of its processes. public: the proxy's own port.

    may_differ: whether another port may be taken. say: takes a line for people.
    """

    host: str
    expected: int
    root: int
    public: int
    may_differ: bool
    say: Callable[[str], None]

    async def run(self) -> int:
        """The port that the server listens on, as soon as that is clear; the caller bounds the wait.

        Another port than the expected one is taken when it alone says whether it is ready, or alone speaks HTTP, and when the
        server has come to rest. Raises SettingError when the server listens where clients are to reach the proxy.
        """
        rest, next_look_s = _Rest(), time.monotonic() + _LOOK_S
        while not await accepts(self.host, self.expected):
            await asyncio.sleep(_RETRY_S)
            now = time.monotonic()
            if now < next_look_s:
                continue
            next_look_s = now + _LOOK_S
            ports = await asyncio.to_thread(listening, self.root)
            if self.public in ports:
                allowed = "a port that the model server does not listen on itself: take another, or write {port} in its command"
                raise SettingError("port", self.public, allowed)
            if not self.may_differ or not ports:
                continue
            rest.saw(now, ports, busy=await asyncio.to_thread(computing, self.root))
            if (
                rest.asks(now)
                and (port := await self._only_one(ports, sure=rest.length_s(now) >= _SPEAKS_S)) is not None
            ):
                self.say(
                    f"the model server does not listen on port {self.expected} that it was told, but on {port}: "
                    "requests go there (--server-port decides otherwise)"
                )
                return port
        return self.expected

    async def _only_one(self, ports: frozenset[int], sure: bool) -> int | None:
        """The one port that is a model server's, as far as can be told. sure: whether speaking HTTP is enough."""
        speaking, telling = [], []
        for port in sorted(ports):
            root = await ask(self.host, port, "/")
            if root.status and not root.metrics:
                speaking.append(port)
                path, answer = await look(self.host, port)
                if path is not None and answer.verdict in (Verdict.READY, Verdict.LOADING):
                    telling.append(port)
        for chosen in (telling, speaking if sure else []):
            if len(chosen) == 1:
                return chosen[0]
        return None


def ports_in_words(ports: frozenset[int]) -> str:
    """What the server listens on instead, and what to do, for the message of a start that failed."""
    if not ports:
        return "; it listens on no port"
    names = ", ".join(map(str, sorted(ports)))
    return f"; it listens on {names}: name the right one with --server-port, or write {{port}} into its command"
