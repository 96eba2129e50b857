"""Making, naming, emptying and removing our own cgroups, either version; knows nothing of CPU quotas.

A group's name says whose it is: `sponge-<pid namespace>-<pid>-<start time>-<number>`. A pid with its start time never
comes back, so a group whose owner is gone can be removed by whoever finds it, and a live owner's is never touched. An
owner in another pid namespace cannot be judged from here; its groups are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Protocol

from knative_sponge.local.cpu.procfs import read_stat

_NAME: Final = re.compile(r"sponge-(\d+)-(\d+)-(\d+)-(\d+)")
_REMOVE_DEADLINE_S: Final = 5.0


class GroupFiles(Protocol):
    """The cgroup file system, so that its rules can be played by a fake. All raise OSError as the kernel does."""

    def read(self, path: Path) -> str: ...

    def write(self, path: Path, text: str) -> None: ...

    def make(self, path: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def groups(self, path: Path) -> list[str]:
        """Names of the groups directly below."""
        ...


class KernelFiles:
    """The real one."""

    def read(self, path: Path) -> str:
        return path.read_text()

    def write(self, path: Path, text: str) -> None:
        # Unbuffered: the kernel's refusal must come out of this write, and O_CREAT is not for this file system.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def make(self, path: Path) -> None:
        path.mkdir()

    def remove(self, path: Path) -> None:
        path.rmdir()

    def groups(self, path: Path) -> list[str]:
        return [entry.name for entry in os.scandir(path) if entry.is_dir()]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named for good: pid namespace (inode), pid in it, start time in clock ticks since boot."""

    namespace: int
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Owner:
        stat = read_stat(os.getpid())
        if stat is None:
            raise OSError(errno.ENOENT, "no /proc entry of this process: is /proc mounted?")
        return cls(os.stat("/proc/self/ns/pid").st_ino, stat.pid, stat.started)

    def group_name(self, number: int) -> str:
        return f"sponge-{self.namespace}-{self.pid}-{self.started}-{number}"

    def outlived(self, name: str) -> bool:
        """Whether `name` is a group of ours whose owner is known to be dead; `self` is the process that asks."""
        match = _NAME.fullmatch(name)
        if match is None:
            return False
        namespace, pid, started, _ = map(int, match.groups())
        if namespace != self.namespace:
            return False
        stat = read_stat(pid)
        return stat is None or stat.started != started


def make_group(files: GroupFiles, parents: list[Path], owner: Owner) -> list[Path]:
    """A new group of the same name below each parent (one per v1 hierarchy); all or, with the OSError, none."""
    for number in count():
        made: list[Path] = []
        try:
            for parent in parents:
                path = parent / owner.group_name(number)
                files.make(path)
                made.append(path)
        except OSError as error:
            for path in made:
                files.remove(path)
            if error.errno == errno.EEXIST:
                continue
            raise
        return made
    raise AssertionError("unreachable")


def sweep(files: GroupFiles, parent: Path, owner: Owner) -> list[Path]:
    """Remove what dead owners left below `parent`, processes included; returns what was removed.

    Trouble with one leftover never keeps a new group from being made: it is left for the next start.
    """
    removed = []
    for name in files.groups(parent):
        if owner.outlived(name):
            with contextlib.suppress(OSError):
                remove_group(files, parent / name)
                removed.append(parent / name)
    return removed


def members(files: GroupFiles, path: Path) -> list[int]:
    """Pids in the group that can be seen from our pid namespace."""
    return [int(pid) for pid in files.read(path / "cgroup.procs").split() if pid != "0"]


def remove_group(files: GroupFiles, path: Path) -> None:
    """Kill everything in the group and below, then remove it; gone already is fine.

    Raises OSError when processes hold on to it for 5 s (uninterruptible, or not ours to signal).
    """
    deadline = time.monotonic() + _REMOVE_DEADLINE_S
    while True:
        try:
            for name in files.groups(path):
                remove_group(files, path / name)
            for pid in members(files, path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            files.remove(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.002)  # a killed process leaves its group a moment later, and nothing tells
        else:
            return
