"""Sets cores by `cpu.max` of a cgroup v2 group of its own; does not choose sizes."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Iterator
from pathlib import Path

from knative_sponge.local.cpu.cfs_quota import Quota
from knative_sponge.local.cpu.cgroup import GroupFiles, Owner, make_group, members, remove_group, sweep
from knative_sponge.local.cpu.control import Entry
from knative_sponge.local.cpu.mounts import Place


class CgroupV2:
    """A new group whose `cpu.max` sets the cores. Satisfies CpuControl.

    In v2 only a group without processes of its own hands controllers down to its children; the root is the exception. So
    the new group is made

    - below our own group, when that is the root;
    - below our own group, when this process is alone in it (a delegated systemd scope). The process first moves to a leaf
      beside the new group, and moves back at the end;
    - otherwise below the nearest ancestor that permits it.
    """

    def __init__(self, files: GroupFiles, place: Place, period_s: float, owner: Owner) -> None:
        """Makes the group, and removes those of dead owners beside it. Raises OSError when no place permits it."""
        self._files = files
        self.period_s = period_s
        self._leaf: Path | None = None
        self._parents: list[Path] = []
        refused: OSError | None = None
        for parent in self._candidates(place):
            try:
                self._group = self._make_below(
                    parent, owner, isolate=parent == place.own and not self._real_root(parent)
                )
            except OSError as error:
                refused = refused or error
                continue
            self._parents = [path for path in (parent, *parent.parents) if path.is_relative_to(place.root)]
            break
        else:
            raise refused or OSError(errno.EBUSY, "the only group in sight holds other processes", str(place.own))
        self.name = f"cgroup v2 {self._group}"
        self.granularity_cores = 1e-6 / period_s

    @property
    def entry(self) -> Entry:
        return Entry(joins=(self._group / "cgroup.procs",))

    @property
    def limit_cores(self) -> float:
        return min(map(self._cores_of, self._parents))

    def attach(self, guardian: int) -> None:
        """Nothing has to be done: the group holds the tree."""

    def apply(self, cores: float) -> float:
        new = Quota.of(min(cores, self.limit_cores), self.period_s)
        self._files.write(self._group / "cpu.max", f"{new.quota_us} {new.period_us}")
        return new.cores

    def usage_s(self) -> float:
        fields = dict(line.split() for line in self._files.read(self._group / "cpu.stat").splitlines())
        return int(fields["usage_usec"]) * 1e-6

    def close(self) -> None:
        remove_group(self._files, self._group)
        self._leave_leaf()

    def _candidates(self, place: Place) -> Iterator[Path]:
        if self._real_root(place.own) or members(self._files, place.own) == [os.getpid()]:
            yield place.own
        yield from (path for path in place.own.parents if path.is_relative_to(place.root))

    def _real_root(self, group: Path) -> bool:
        """Whether the group is the machine's root, which the rule exempts, and not merely the root of our cgroup namespace."""
        try:
            self._files.read(group / "cgroup.events")
        except FileNotFoundError:
            return True
        return False

    def _make_below(self, parent: Path, owner: Owner, *, isolate: bool) -> Path:
        if "cpu" not in self._files.read(parent / "cgroup.controllers").split():
            raise OSError(errno.ENOENT, "the cpu controller is not handed down to", str(parent))
        sweep(self._files, parent, owner)
        group = make_group(self._files, [parent], owner)[0]
        try:
            if isolate:
                self._enter_leaf(parent, group)
            if "cpu" not in self._files.read(parent / "cgroup.subtree_control").split():
                self._files.write(parent / "cgroup.subtree_control", "+cpu")
            self._files.read(group / "cpu.max")
        except OSError:
            self._files.remove(group)
            self._leave_leaf()
            raise
        return group

    def _enter_leaf(self, parent: Path, group: Path) -> None:
        leaf = parent / f"{group.name}-owner"
        self._files.make(leaf)
        self._leaf = leaf
        self._files.write(leaf / "cgroup.procs", str(os.getpid()))

    def _leave_leaf(self) -> None:
        """Move back to the group that we came from, and leave that group as it was found."""
        leaf, self._leaf = self._leaf, None
        if leaf is None:
            return
        with contextlib.suppress(OSError):  # the controller was not enabled when making the group failed half way
            self._files.write(leaf.parent / "cgroup.subtree_control", "-cpu")
        for pid in members(self._files, leaf):
            self._files.write(leaf.parent / "cgroup.procs", str(pid))
        self._files.remove(leaf)

    def _cores_of(self, group: Path) -> float:
        try:
            quota, period = self._files.read(group / "cpu.max").split()
        except FileNotFoundError:  # the root has none
            return math.inf
        return math.inf if quota == "max" else int(quota) / int(period)
