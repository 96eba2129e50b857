"""What /proc says about processes: parents, threads, CPU time. It reads only and sends no signal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One line of /proc/PID/stat.

    cpu_s: its own CPU time, ended threads included. waited_cpu_s: the CPU time of children that it has waited for.
    started: clock ticks since boot; pid and start time together identify a process for all time.
    """

    pid: int
    parent: int
    cpu_s: float
    waited_cpu_s: float
    started: int


def read_stat(pid: int, proc: Path = Path("/proc")) -> ProcessStat | None:
    """The process's line; None when there is no such process."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in brackets and may hold brackets and spaces itself. The numbers start after the last bracket.
    words = text[text.rindex(")") + 2 :].split()
    user, system, waited_user, waited_system = (int(word) * _TICK_S for word in words[11:15])
    return ProcessStat(pid, int(words[1]), user + system, waited_user + waited_system, int(words[19]))


def descendants(root: int) -> Iterator[ProcessStat]:
    """All processes below `root`, the nearest first, without `root` itself.

    A scan may miss a process whose parent ends meanwhile. A caller that needs all of them scans until it finds nothing new.
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


def computing(root: int) -> bool:
    """Whether any thread below `root` runs, waits for a CPU, or waits for a disk at this moment."""
    for process in descendants(root):
        for thread in threads(process.pid):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{process.pid}/task/{thread}/stat").read_text(errors="replace")
                if text[text.rindex(")") + 2] in "RD":
                    return True
    return False


def tree_cpu_s(root: int) -> float:
    """CPU seconds used below `root`, ended processes included; exact to a clock tick per process.

    `root` must be a subreaper that waits for every orphan. The time of an ended process is then in the waited time of a living
    one.
    """
    guardian = read_stat(root)
    if guardian is None:
        return 0.0
    return guardian.waited_cpu_s + sum(stat.cpu_s + stat.waited_cpu_s for stat in descendants(root))
