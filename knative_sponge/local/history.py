"""How many cores were allocated at which time, and the core-seconds that add up; reads no clock."""

from __future__ import annotations


class CoresHistory:
    """Allocated cores as a step function of time. Times are the caller's seconds and never go back."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        """(start of the step, cores), oldest first."""

    def record(self, now: float, cores: float) -> None:
        """`cores` are allocated from `now` on. An unchanged size adds no step."""
        if self.steps and now < self.steps[-1][0]:
            raise ValueError(f"time went back from {self.steps[-1][0]} to {now}")
        if not self.steps or self.steps[-1][1] != cores:
            self.steps.append((now, cores))

    def core_seconds(self, now: float) -> float:
        """The integral from the first step to `now`; 0 before the first."""
        ends = [start for start, _ in self.steps[1:]] + [now]
        return (
            sum(cores * (end - start) for (start, cores), end in zip(self.steps, ends, strict=True))
            if self.steps
            else 0.0
        )
