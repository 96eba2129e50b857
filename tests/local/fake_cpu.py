"""Control of cores that sets none: it records what it was told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from knative_sponge.local.cpu.control import Entry


@dataclass(slots=True)
class FakeCpu:
    """Records sizes and holds no process. Satisfies CpuControl."""

    granularity_cores: float = 0.001
    limit_cores: float = math.inf
    period_s: float = 0.0
    name: str = "fake"
    history: list[float] = field(default_factory=list)
    used_s: float = 0.0
    closed: bool = False

    @property
    def entry(self) -> Entry:
        return Entry()

    def attach(self, guardian: int) -> None:
        pass

    def apply(self, cores: float) -> float:
        self.history.append(min(cores, self.limit_cores))
        return self.history[-1]

    def usage_s(self) -> float:
        return self.used_s

    def close(self) -> None:
        self.closed = True
