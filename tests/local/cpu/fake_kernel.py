"""The kernel's cgroup rules on a dict, written from its documentation: the oracle for both versions' writers."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Literal


def _refuse(code: int, path: Path) -> OSError:
    return OSError(code, errno.errorcode[code], str(path))


class FakeKernel:
    """Groups by path. Satisfies GroupFiles.

    Version 1 (sched-bwc.rst): quota at least 1 ms or -1, period 1 ms to 1 s, a child's quota/period never above the
    nearest bounded ancestor's. Version 2 (cgroup-v2.rst): a group's files come with the controllers its parent hands
    down; a group that is not the root hands none down while it holds a process, and takes no process once it does.
    """

    def __init__(self, version: Literal[1, 2], root: Path, controllers: str = "cpu memory") -> None:
        self.version = version
        self.root = root
        self.groups_: dict[Path, dict[str, str]] = {root: self._fresh()}
        self.locked: set[Path] = set()
        """Groups below which nothing may be made and whose files are not writable."""
        self.controllers = controllers
        self.machine_root = True
        """False when the root in sight is only that of a cgroup namespace."""
        self.writes: list[tuple[Path, str]] = []

    def add(self, path: Path, procs: str = "") -> Path:
        """A group that exists from the start."""
        self.groups_[path] = self._fresh() | {"cgroup.procs": procs}
        return path

    def hold(self, path: Path, pid: int) -> None:
        """Put a process into a group."""
        for group in self.groups_.values():
            group["cgroup.procs"] = " ".join(word for word in group["cgroup.procs"].split() if word != str(pid))
        self.groups_[path]["cgroup.procs"] += f" {pid}"

    def read(self, path: Path) -> str:
        group, name = self._at(path)
        if self.version == 2:
            if name == "cgroup.controllers":
                at_root = path.parent == self.root
                return self.controllers if at_root else self.groups_[path.parent.parent]["cgroup.subtree_control"]
            if name == "cgroup.events" and path.parent == self.root and self.machine_root:
                raise _refuse(errno.ENOENT, path)
            if name == "cpu.max" and not self._has_cpu(path.parent):
                raise _refuse(errno.ENOENT, path)
        return group[name]

    def write(self, path: Path, text: str) -> None:
        group, name = self._at(path)
        if path.parent in self.locked:
            raise _refuse(errno.EACCES, path)
        if name == "cgroup.procs":
            if self.version == 2 and group["cgroup.subtree_control"] and not self._is_real_root(path.parent):
                raise _refuse(errno.EBUSY, path)
            self.hold(path.parent, int(text))
        elif name == "cgroup.subtree_control":
            if text == "+cpu" and group["cgroup.procs"].split() and not self._is_real_root(path.parent):
                raise _refuse(errno.EBUSY, path)
            group[name] = "cpu" if text == "+cpu" else ""
        elif name in {"cpu.cfs_quota_us", "cpu.cfs_period_us"}:
            self._set_v1(path.parent, group | {name: text}, path)
        elif name == "cpu.max":
            quota, period = map(int, text.split())
            if not self._has_cpu(path.parent):
                raise _refuse(errno.ENOENT, path)
            if quota < 1000 or not 1000 <= period <= 1_000_000:
                raise _refuse(errno.EINVAL, path)
            group[name] = text
        else:
            raise _refuse(errno.EACCES, path)
        self.writes.append((path, text))

    def make(self, path: Path) -> None:
        if path.parent in self.locked:
            raise _refuse(errno.EACCES, path)
        if path in self.groups_:
            raise _refuse(errno.EEXIST, path)
        self.groups_[path] = self._fresh()

    def remove(self, path: Path) -> None:
        group, _ = self._at(path / "cgroup.procs")
        if group["cgroup.procs"].split() or self.groups(path):
            raise _refuse(errno.EBUSY, path)
        del self.groups_[path]

    def groups(self, path: Path) -> list[str]:
        if path not in self.groups_:
            raise _refuse(errno.ENOENT, path)
        return [group.name for group in self.groups_ if group.parent == path and group != path]

    def cores(self, path: Path) -> Fraction | None:
        """The ratio in force of a v1 group, None when unbounded."""
        group = self.groups_[path]
        quota = int(group["cpu.cfs_quota_us"])
        return None if quota < 0 else Fraction(quota, int(group["cpu.cfs_period_us"]))

    def _fresh(self) -> dict[str, str]:
        if self.version == 1:
            return {
                "cgroup.procs": "",
                "cpu.cfs_quota_us": "-1",
                "cpu.cfs_period_us": "100000",
                "cpuacct.usage": "1500000000",
            }
        return {
            "cgroup.procs": "",
            "cgroup.subtree_control": "",
            "cgroup.events": "populated 0",
            "cpu.max": "max 100000",
            "cpu.stat": "usage_usec 1500000",
        }

    def _at(self, path: Path) -> tuple[dict[str, str], str]:
        if path.parent not in self.groups_:
            raise _refuse(errno.ENOENT, path)
        return self.groups_[path.parent], path.name

    def _is_real_root(self, path: Path) -> bool:
        return path == self.root and self.machine_root

    def _has_cpu(self, path: Path) -> bool:
        return path != self.root and "cpu" in self.groups_[path.parent]["cgroup.subtree_control"].split()

    def _set_v1(self, path: Path, changed: dict[str, str], file: Path) -> None:
        quota, period = int(changed["cpu.cfs_quota_us"]), int(changed["cpu.cfs_period_us"])
        if not (quota == -1 or quota >= 1000) or not 1000 <= period <= 1_000_000:
            raise _refuse(errno.EINVAL, file)
        if quota > 0:
            for parent in path.parents:
                bound = self.cores(parent) if parent in self.groups_ else None
                if bound is not None and Fraction(quota, period) > bound:
                    raise _refuse(errno.EINVAL, file)
        self.groups_[path] = changed
