"""What /proc says about processes: parents, threads, CPU time. Reads only; signals nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One line of /proc/PID/stat.

    cpu_s: its own CPU time, ended threads included. waited_cpu_s: that of children it has waited for.
    started: clock ticks since boot; with the pid it names a process for good.
    """

    pid: int
    parent: int
    cpu_s: float
    waited_cpu_s: float
    started: int


def read_stat(pid: int, proc: Path = Path("/proc")) -> ProcessStat | None:
    """The process's line, None when there is no such process."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in brackets and may itself hold brackets and spaces; the numbers start after the last one.
    words = text[text.rindex(")") + 2 :].split()
    user, system, waited_user, waited_system = (int(word) * _TICK_S for word in words[11:15])
    return ProcessStat(pid, int(words[1]), user + system, waited_user + waited_system, int(words[19]))


def descendants(root: int) -> Iterator[ProcessStat]:
    """Everything below `root`, nearest first, without `root` itself.

    A process whose parent ends during the scan can be missed: whoever needs all of them scans until nothing is new.
    """
    children: dict[int, list[ProcessStat]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (stat := read_stat(int(name))) is not None:
            children.setdefault(stat.parent, []).append(stat)
    front = [root]
    while front:
        below = [stat for pid in front for stat in children.pop(pid, ())]
        yield from below
        front = [stat.pid for stat in below]


def threads(pid: int) -> list[int]:
    """Thread ids of a process, empty when it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def tree_cpu_s(root: int) -> float:
    """CPU seconds used below `root`, ended processes included; exact to a clock tick per process.

    `root` must be a subreaper that waits for every orphan: then what ended is in some living process's waited time.
    """
    guardian = read_stat(root)
    if guardian is None:
        return 0.0
    return guardian.waited_cpu_s + sum(stat.cpu_s + stat.waited_cpu_s for stat in descendants(root))
