"""How many connections a port keeps, and which one goes when another comes. Closes none itself; knows no protocol."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Protocol


class Place(Enum):
    """What a new connection gets."""

    ORDINARY = auto()
    SPARE = auto()
    """It may ask what must be answered even now (probes), and nothing else."""
    NONE = auto()
    """It has to be closed at once."""


class Connection(Protocol):
    """A connection, as far as it can be told to go."""

    def shed(self) -> None:
        """Close: another connection needs the place. It is forgotten already."""
        ...


class ConnectionLimit:
    """At most `most` connections, and `spare` more for what must be answered even then.

    When all places are taken, a new connection takes that of the one that has been idle longest; a keep-alive connection
    may be closed at any time (RFC 9112 §9.3.1). Where none is idle, it takes the place of the one that has been sending the
    head of a request for longest. Connections with a request in progress are never told to go.
    """

    def __init__(self, most: int, spare: int = 0) -> None:
        if most < 1 or spare < 0:
            raise ValueError("a port needs room for at least one connection")
        self.most = most
        self.spare = spare
        self._open: dict[Connection, None] = {}
        self._spares: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._heads: dict[Connection, None] = {}

    @property
    def open(self) -> int:
        """Connections that have a place, spare ones included."""
        return len(self._open) + len(self._spares)

    def enter(self, connection: Connection) -> Place:
        """A new connection, idle so far. Others may have been shed for it."""
        if len(self._open) >= self.most and not self._shed_one(self._open):
            if len(self._spares) >= self.spare and not self._shed_one(self._spares):
                return Place.NONE
            self._spares[connection] = self._idle[connection] = None
            return Place.SPARE
        self._open[connection] = self._idle[connection] = None
        return Place.ORDINARY

    def promote(self, connection: Connection) -> bool:
        """Whether a connection with a spare place has an ordinary one from now on."""
        if len(self._open) >= self.most:
            return False
        self._spares.pop(connection, None)
        self._open[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """It is closed; nothing when it was shed."""
        for places in (self._open, self._spares, self._idle, self._heads):
            places.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It has no request in progress."""
        if connection in self._open or connection in self._spares:
            self._idle[connection] = None

    def in_head(self, connection: Connection) -> None:
        """A request's head has begun on it; nothing when that is known."""
        if self._idle.pop(connection, self) is None:
            self._heads[connection] = None

    def busy(self, connection: Connection) -> None:
        """A request is in progress on it."""
        self._idle.pop(connection, None)
        if self._heads:
            self._heads.pop(connection, None)

    def _shed_one(self, places: dict[Connection, None]) -> bool:
        """Whether one of these has gone."""
        for connection in self._quiet():
            if connection in places:
                self.leave(connection)
                connection.shed()
                return True
        return False

    def _quiet(self) -> Iterator[Connection]:
        """Connections without a request in progress, in the order in which they are shed."""
        yield from self._idle
        yield from self._heads
