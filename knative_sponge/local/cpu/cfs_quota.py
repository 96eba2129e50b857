"""Cores as the kernel's pair (quota, period) of CFS bandwidth control; arithmetic only, touches no file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from knative_sponge.core.quantity import format_duration
from knative_sponge.errors import SettingError

KERNEL_MIN_US: Final = 1_000
"""Smallest quota and smallest period that the kernel takes (kernel/sched/core.c: min_cfs_quota_period)."""
KERNEL_MAX_PERIOD_US: Final = 1_000_000
DEFAULT_PERIOD_S: Final = 0.02
"""Chosen by benchmarks/cfs_period.py, which holds the figures. At the kernel's own 100 ms, a 5 ms unit of work on 0.3 cores
takes 5 or 75 ms. At 20 ms it takes at most 34 ms. At shorter periods threads starve each other, as the kernel deals quota in
slices of 5 ms."""


def check_period(period_s: float) -> float:
    """Returns `period_s`. Raises SettingError when the kernel would not take it."""
    if not KERNEL_MIN_US <= period_s * 1e6 <= KERNEL_MAX_PERIOD_US:
        raise SettingError("cfs-period", format_duration(period_s), "a duration from 1ms to 1s")
    return period_s


@dataclass(frozen=True, slots=True)
class Quota:
    """`quota_us` of CPU time in every `period_us`, summed over CPUs."""

    quota_us: int
    period_us: int

    def __post_init__(self) -> None:
        if self.quota_us < KERNEL_MIN_US or not KERNEL_MIN_US <= self.period_us <= KERNEL_MAX_PERIOD_US:
            raise ValueError(f"the kernel refuses {self.quota_us} us in {self.period_us} us")

    @classmethod
    def of(cls, cores: float, period_s: float) -> Quota:
        """`cores` at `period_s`, never above `cores` by more than rounding.

        The period grows where the quota would fall below the kernel's 1 ms: 0.03 cores at 20 ms become 1 ms in 33 ms.
        """
        if not cores * KERNEL_MAX_PERIOD_US >= KERNEL_MIN_US:
            raise ValueError(f"cores must be at least 0.001, not {cores}")
        period_us = max(round(period_s * 1e6), math.ceil(KERNEL_MIN_US / cores - 1e-6))
        return cls(max(KERNEL_MIN_US, int(cores * period_us + 1e-6)), period_us)

    @property
    def cores(self) -> float:
        """The size that the pair stands for."""
        return self.quota_us / self.period_us
