"""Chooses the way to set cores that this process may use, and says why; makes the group, applies no size."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.affinity import Affinity
from knative_sponge.local.cpu.cfs_quota import DEFAULT_PERIOD_S, check_period
from knative_sponge.local.cpu.cgroup import GroupFiles, KernelFiles, Owner
from knative_sponge.local.cpu.cgroup_v1 import CgroupV1
from knative_sponge.local.cpu.cgroup_v2 import CgroupV2
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.cpu.mounts import Place, find_place

_HINT: Final = "; under `systemd-run --user --scope -p Delegate=yes` there is one"


@dataclass(frozen=True, slots=True)
class Choice:
    """control: what sets the cores. reason: one line for people that says which control it is and why."""

    control: CpuControl
    reason: str


def choose_control(
    period_s: float = DEFAULT_PERIOD_S, *, proc: Path = Path("/proc/self"), files: GroupFiles | None = None
) -> Choice:
    """The finest control that is possible: a cgroup of the version that holds the cpu controller, else CPU affinity.

    Raises SettingError on systems other than Linux, and for a period that the kernel does not take.
    """
    if sys.platform != "linux":
        raise SettingError(
            "platform", sys.platform, "Linux, whose kernel can hold a process tree to a share of the CPUs"
        )
    check_period(period_s)
    place = find_place("cpu", proc)
    if place is None:
        why = "no cgroup hierarchy with a cpu controller is mounted"
    else:
        try:
            control = _cgroup(place, period_s, proc, KernelFiles() if files is None else files)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            why = f"no cgroup of our own ({where}{error.strerror})" + (_HINT if place.version == 2 else "")
        else:
            return Choice(control, f"cores set by {control.name}, CFS period {period_s * 1000:g} ms")
    affinity = Affinity(os.sched_getaffinity(0))
    return Choice(affinity, f"cores set by CPU affinity, whole cores only: {why}")


def _cgroup(place: Place, period_s: float, proc: Path, files: GroupFiles) -> CpuControl:
    owner = Owner.this_process()
    if place.version == 2:
        return CgroupV2(files, place, period_s, owner)
    cpuacct = find_place("cpuacct", proc)
    return CgroupV1(files, place, cpuacct if cpuacct is not None and cpuacct.version == 1 else None, period_s, owner)
