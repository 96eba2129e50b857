"""One maker or remover of a cluster at a time on a machine. Never waits for another."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster.provider import ClusterError


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold the file `lock`; it is free again when this process ends, however it does. Raises ClusterError when it is held."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClusterError("another process is making or removing the cluster") from error
        yield
