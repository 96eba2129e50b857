"""What clients may take of the proxy together, and how long one may keep what it has; counts, but decides no request."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from knative_sponge.byte_budget import DEFAULT, ByteBudget
from knative_sponge.connection_limit import ConnectionLimit
from knative_sponge.process_limits import HeapTrim
from knative_sponge.tls_acceptor import handshake_files

CONNECTION_BYTES: Final = 32 * 1024
"""What a connection costs besides what the budget counts: 4.5 KiB idle, 12 KiB with a small request in the queue, 27 KiB with
one of 50 fields, about 10 KiB for the connection to the model server; measured, over plain TCP."""
BASE_BYTES: Final = 64 * 2**20
"""What the process needs for itself: 40 MiB after its start, and room for what is copied for a moment."""
RESERVED_FILES: Final = 128
"""Open files that are not for the data ports: listeners, the side ports' connections, the loop, spare places. Connections whose
TLS handshake is not over come on top (`tls_acceptor.handshake_files`)."""
_FILES_PER_CONNECTION: Final = 3
"""Its socket, one to the model server, and one that watches a client that has ended its side."""
_SHARE: Final = 4
"""One part in so many of the memory is for connections."""
_SPARE: Final = 16
_FEWEST: Final = 8
_LEAST: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Shared by all data ports of a process.

    budget: bytes that are held for clients: of heads, bodies and answers. connections: places.
    head_timeout_s: from the first byte of a head, or the connection's start, to its end.
    delivery_timeout_s: how long a client may take nothing of what is sent to it, before it is cut off.
    longest_s: how long the rest of an answer may take, once the application is done with it.
    """

    budget: ByteBudget = field(default_factory=ByteBudget)
    connections: ConnectionLimit = field(
        default_factory=lambda: ConnectionLimit(DEFAULT // _SHARE // CONNECTION_BYTES, _SPARE)
    )
    head_timeout_s: float = 60.0
    delivery_timeout_s: float = 60.0
    longest_s: float = math.inf


def memory_budget(limit: int | None) -> int:
    """Bytes for strangers in a container that may use `limit` bytes; None, where no limit is known, takes the default.

    A quarter of what the process does not need itself is left to the kernel, which counts the buffers of sockets as the
    container's memory.
    """
    if limit is None:
        return DEFAULT
    return max((limit - BASE_BYTES) * 3 // 4, _LEAST)


def shares(memory: int, files: int, most: int | None = None) -> tuple[ByteBudget, ConnectionLimit]:
    """How `memory` bytes and `files` open files are shared between connections and what is on them.

    most: connections at most; None is as many as a quarter of the memory can carry. The files bound both.
    """
    by_files = max((files - RESERVED_FILES - handshake_files(files)) // _FILES_PER_CONNECTION, _FEWEST)
    if most is None:
        most = max(memory // _SHARE // CONNECTION_BYTES, _FEWEST)
    most = min(most, by_files)
    left = memory - (most + _SPARE) * CONNECTION_BYTES
    return ByteBudget(max(left, memory // _SHARE), HeapTrim()), ConnectionLimit(most, _SPARE)
