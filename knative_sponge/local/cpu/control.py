"""The port through which cores are set, and its fake. It opens no file and chooses no size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """What a process must do before exec to come under control.

    joins: files to which it writes `0` (cgroup.procs). cpus: CPUs to which it binds itself; empty: it does not bind itself.
    """

    joins: tuple[Path, ...] = ()
    cpus: frozenset[int] = frozenset()


class CpuControl(Protocol):
    """Holds one process tree to a number of cores, changed in place."""

    name: str
    """The kind of control, for people."""
    granularity_cores: float
    """Sizes are multiples of it."""
    period_s: float
    """Seconds over which a quota counts; 0 where there is no quota, and so no wait for the next period."""

    @property
    def entry(self) -> Entry:
        """How the first process comes under control, at the size last applied."""
        ...

    @property
    def limit_cores(self) -> float:
        """The most that can be in force; inf where nothing bounds it."""
        ...

    def attach(self, guardian: int) -> None:
        """Name the pid of the tree's guardian: every process below it is held."""
        ...

    def apply(self, cores: float) -> float:
        """Hold the tree to `cores` from now on and return the size in force. Raises OSError when that failed."""
        ...

    def usage_s(self) -> float:
        """Core-seconds used so far."""
        ...

    def close(self) -> None:
        """Kill the rest of the tree and remove the groups that were made. Raises OSError when something stays."""
        ...
