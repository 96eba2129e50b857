"""What the system allows this process: open files and memory. Decides nothing about what they are spent on.

Sources: getrlimit(2); Go's `os/rlimit.go`; the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")
_NO_LIMIT: Final = 2**60
"""An unlimited v1 group says the largest multiple of a page below 2^63."""
_MOST_FILES: Final = 2**20
"""What stands for an unlimited number of files, as Linux's `fs.nr_open` does by default."""


def open_files() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one and return it; where that is refused, what it was.

    The soft limit is low for the sake of programs that use select(2), which fails above 1,023. Go's runtime raises it at
    start for that reason, and so may a program that uses epoll. Programs it starts inherit the limit: it is for
    processes that start none but their own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # a sandbox may forbid it; what there is must do
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return open_files()


class HeapTrim:
    """Gives free pages of the heap back to the system, at most once a second.

    What one burst has freed may lie in pieces that fit nothing of the next one: without this both would count. Nothing
    where the C library has no malloc_trim(3).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s = -math.inf

    def __call__(self) -> None:
        now = self._clock()
        if now - self._last_s >= 1.0:
            self._last_s = now
            import ctypes  # noqa: PLC0415 (few processes ever need it, and it takes a megabyte)

            with contextlib.suppress(AttributeError):
                ctypes.CDLL(None).malloc_trim(0)


def memory_limit(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int | None:
    """Bytes of memory that this process's cgroup may use, v1 or v2; None when there is no limit, or none is shown.

    The least of the group's own and its ancestors', as far as they are visible: in a container the mount's root usually
    is the container's group.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    found = []
    for line in ("0::/", ":memory:/", *lines):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for place in (group, *group.parents):
            found += _limit(place / name)
            if place == root:
                break
    return min(found, default=None)


def _limit(file: Path) -> list[int]:
    """The limit a file shows, if it shows one."""
    try:
        limit = int(file.read_text())
    except (OSError, ValueError):  # no such group, or `max`
        return []
    return [limit] if limit < _NO_LIMIT else []
