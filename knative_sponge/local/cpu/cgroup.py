"""Makes, names, empties and removes our own cgroups of either version; knows nothing of CPU quotas.

A group's name names its owner: `sponge-<pid namespace>-<pid>-<start time>-<number>`. A pid with its start time never comes
back. So any process may remove a group whose owner is dead, and a living owner's group is never touched. The owner of a group
from another pid namespace may live or not; such groups are left alone.
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
    """The cgroup file system as a port, so that a fake can play the kernel. All methods raise OSError as the kernel does."""

    def read(self, path: Path) -> str: ...

    def write(self, path: Path, text: str) -> None: ...

    def make(self, path: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def groups(self, path: Path) -> list[str]:
        """Names of the groups directly below."""
        ...


class KernelFiles:
    """The real cgroup file system."""

    def read(self, path: Path) -> str:
        return path.read_text()

    def write(self, path: Path, text: str) -> None:
        # Unbuffered, so that the kernel's refusal comes out of this write; without O_CREAT, which this file system lacks.
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
    """A process, identified for all time.

    namespace: inode of its pid namespace. pid: in that namespace. started: clock ticks since boot.
    """

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
        """Whether `name` is a group of ours whose owner is known to be dead. `self` is the process that asks."""
        match = _NAME.fullmatch(name)
        if match is None:
            return False
        namespace, pid, started, _ = map(int, match.groups())
        if namespace != self.namespace:
            return False
        stat = read_stat(pid)
        return stat is None or stat.started != started


def make_group(files: GroupFiles, parents: list[Path], owner: Owner) -> list[Path]:
    """Make a new group of one name below each parent (one per v1 hierarchy). On an OSError none is left."""
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
    """Remove the groups of dead owners below `parent`, with their processes; returns the groups removed.

    A group that cannot be removed is left for the next start: it never keeps a new group from being made.
    """
    removed = []
    for name in files.groups(parent):
        if owner.outlived(name):
            with contextlib.suppress(OSError):
                remove_group(files, parent / name)
                removed.append(parent / name)
    return removed


def members(files: GroupFiles, path: Path) -> list[int]:
    """Pids in the group, as far as our pid namespace shows them."""
    return [int(pid) for pid in files.read(path / "cgroup.procs").split() if pid != "0"]


def remove_group(files: GroupFiles, path: Path) -> None:
    """Kill every process in the group and below, then remove it. A group that is gone already is no error.

    Raises OSError when processes stay in it for 5 s: they cannot be interrupted, or may not be signalled.
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
            time.sleep(0.002)  # a killed process leaves its group a moment later, and no event tells
        else:
            return
