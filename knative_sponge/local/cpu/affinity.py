"""Sets cores by CPU affinity, for users without cgroup rights. Whole cores only; does not choose sizes."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable

from knative_sponge.local.cpu.control import Entry
from knative_sponge.local.cpu.procfs import descendants, threads, tree_cpu_s

_PASSES = 10


class Affinity:
    """Binds every thread of the tree to the last of the CPUs that this process may use. Satisfies CpuControl.

    Threads and processes that start later inherit the binding. A thread that binds itself anew escapes until the next
    `apply`. Two trees of one user share the same last CPUs: affinity bounds a tree, but reserves nothing for it.
    """

    granularity_cores = 1.0
    period_s = 0.0

    def __init__(self, cpus: Iterable[int]) -> None:
        self._cpus = sorted(cpus)
        if not self._cpus:
            raise ValueError("at least one CPU is needed")
        self._bound = frozenset(self._cpus)
        self._guardian: int | None = None
        self.name = "CPU affinity"

    @property
    def entry(self) -> Entry:
        return Entry(cpus=self._bound)

    @property
    def limit_cores(self) -> float:
        return float(len(self._cpus))

    def attach(self, guardian: int) -> None:
        self._guardian = guardian

    def apply(self, cores: float) -> float:
        count = min(max(1, math.ceil(cores - 1e-9)), len(self._cpus))
        self._bound = frozenset(self._cpus[-count:])
        # A thread that starts during a pass may inherit an old binding. So passes repeat until one changes nothing.
        for _ in range(_PASSES):
            if not self._bind():
                break
        return float(count)

    def usage_s(self) -> float:
        return 0.0 if self._guardian is None else tree_cpu_s(self._guardian)

    def close(self) -> None:
        """Nothing has to be removed: the guardian ends the tree."""

    def _bind(self) -> bool:
        changed = False
        if self._guardian is not None:
            for process in descendants(self._guardian):
                for thread in threads(process.pid):
                    # A thread that has ended, or one of another user (a set-uid helper), cannot be bound.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        if os.sched_getaffinity(thread) != self._bound:
                            os.sched_setaffinity(thread, self._bound)
                            changed = True
        return changed
