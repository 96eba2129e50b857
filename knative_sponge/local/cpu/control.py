"""The port through which cores are set, and its fake; opens no file and chooses no size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """What a process must do before exec to come under control.

    joins: files it writes `0` to (cgroup.procs). cpus: CPUs it binds itself to; empty leaves them alone.
    """

    joins: tuple[Path, ...] = ()
    cpus: frozenset[int] = frozenset()


class CpuControl(Protocol):
    """Holds one process tree to a number of cores, changed in place."""

    name: str
    """What holds it, for people."""
    granularity_cores: float
    """Sizes are multiples of this."""
    period_s: float
    """Seconds over which a quota counts; 0 where there is none, so that nobody waits for the next period."""

    @property
    def entry(self) -> Entry:
        """How the first process gets in, at the size last applied."""
        ...

    @property
    def limit_cores(self) -> float:
        """The most that can be in force; inf where nothing bounds it."""
        ...

    def attach(self, guardian: int) -> None:
        """Tell it the pid of the tree's guardian: every process below that one is held."""
        ...

    def apply(self, cores: float) -> float:
        """Hold the tree to `cores` from now on and return the size in force. Raises OSError when that failed."""
        ...

    def usage_s(self) -> float:
        """Core-seconds used so far."""
        ...

    def throttled_s(self) -> float:
        """Seconds, summed over CPUs, for which runnable threads were held back; 0 where that is not counted."""
        ...

    def close(self) -> None:
        """Kill what is left of the tree and remove what was made. Raises OSError when something stays."""
        ...


@dataclass(slots=True)
class FakeCpu:
    """Records what it is told and holds nothing; for tests and for runs in virtual time. Satisfies CpuControl."""

    granularity_cores: float = 0.001
    limit_cores: float = math.inf
    period_s: float = 0.0
    name: str = "fake"
    history: list[float] = field(default_factory=list)
    used_s: float = 0.0
    closed: bool = False

    @property
    def entry(self) -> Entry:
        return Entry()

    def attach(self, guardian: int) -> None:
        pass

    def apply(self, cores: float) -> float:
        self.history.append(min(cores, self.limit_cores))
        return self.history[-1]

    def usage_s(self) -> float:
        return self.used_s

    def throttled_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed = True
