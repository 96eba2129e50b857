"""Sets cores by `cpu.cfs_quota_us` of a cgroup v1 group of its own; does not choose sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from knative_sponge.local.cpu.cfs_quota import Quota
from knative_sponge.local.cpu.cgroup import GroupFiles, Owner, make_group, remove_group, sweep
from knative_sponge.local.cpu.control import Entry
from knative_sponge.local.cpu.mounts import Place
from knative_sponge.local.cpu.procfs import tree_cpu_s

_QUOTA: Final = "cpu.cfs_quota_us"
_PERIOD: Final = "cpu.cfs_period_us"


class CgroupV1:
    """A group below our own in the v1 `cpu` hierarchy, and one of the same name in `cpuacct` where that is another hierarchy.

    It can never have more cores than our own group: in v1 a parent's quota bounds its children, and the kernel refuses
    (EINVAL) a larger ratio for a child. Satisfies CpuControl.
    """

    def __init__(self, files: GroupFiles, cpu: Place, cpuacct: Place | None, period_s: float, owner: Owner) -> None:
        """Makes the groups, and removes those of dead owners beside them. Raises OSError when it may not make them."""
        self._files = files
        self.period_s = period_s
        self._parents = [cpu.own, *(parent for parent in cpu.own.parents if parent.is_relative_to(cpu.root))]
        places = [cpu.own]
        if cpuacct is not None and cpuacct.own.resolve() != cpu.own.resolve():
            places.append(cpuacct.own)
        for parent in places:
            sweep(files, parent, owner)
        self._groups = make_group(files, places, owner)
        self._group = self._groups[0]
        self._usage = self._groups[-1] / "cpuacct.usage" if cpuacct is not None else None
        self._guardian: int | None = None
        self.name = f"cgroup v1 {self._group}"
        self.granularity_cores = 1e-6 / period_s

    @property
    def entry(self) -> Entry:
        return Entry(joins=tuple(group / "cgroup.procs" for group in self._groups))

    @property
    def limit_cores(self) -> float:
        return min(map(self._cores_of, self._parents))

    def attach(self, guardian: int) -> None:
        self._guardian = guardian

    def apply(self, cores: float) -> float:
        new = Quota.of(min(cores, self.limit_cores), self.period_s)
        # The period is written first. In between, the old quota goes with the new period. The kernel does not refuse that pair,
        # as it is never more than the larger of both sizes. Either the period grows; or it shrinks, and then the old quota was
        # the least there is, as a period is longer than usual only for that quota.
        self._files.write(self._group / _PERIOD, str(new.period_us))
        self._files.write(self._group / _QUOTA, str(new.quota_us))
        return new.cores

    def usage_s(self) -> float:
        if self._usage is not None:
            return int(self._files.read(self._usage)) * 1e-9
        return 0.0 if self._guardian is None else tree_cpu_s(self._guardian)

    def close(self) -> None:
        for group in self._groups:
            remove_group(self._files, group)

    def _read(self, group: Path) -> tuple[int, int]:
        return int(self._files.read(group / _QUOTA)), int(self._files.read(group / _PERIOD))

    def _cores_of(self, group: Path) -> float:
        try:
            quota, period = self._read(group)
        except FileNotFoundError:  # on some kernels the hierarchy's root has no such file
            return math.inf
        return math.inf if quota < 0 else quota / period
