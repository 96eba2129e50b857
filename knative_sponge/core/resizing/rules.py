"""The times and tolerances of a pod's resize (`core/resizing/machine.py`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResizeRules:
    """Times in seconds, sizes in cores."""

    min_spacing_s: float = 1.0
    """Between two patches of one pod: resizes in quick succession race in kubelets."""
    stuck_s: float = 10.0
    """Without confirmation for so long, people are told."""
    refusal_s: float = 60.0
    """What was refused is not asked for again before."""
    busy_s: tuple[float, float] = (1.0, 30.0)
    """First and longest wait after an API server that did not answer, and after a proxy that did not."""
    error_s: tuple[float, float] = (5.0, 60.0)
    """First and longest wait after a kubelet that failed."""
    rounding: float = 0.011
    """Sizes this close are the same: with systemd, quotas are multiples of 10m."""

    def __post_init__(self) -> None:
        for name in ("min_spacing_s", "stuck_s", "refusal_s", "rounding"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
