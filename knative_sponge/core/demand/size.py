"""How many cores to plan with while a resize is under way (docs/design.md §4.11)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from knative_sponge.core.latency.model import LatencyModel


@dataclass(frozen=True, slots=True)
class Size:
    """The model server's size as known to the proxy.

    cores: what is surely in force, and what to plan with: between *patched* and *actuated* the smaller of the two.
    coming: the larger size that was patched and is not confirmed; None when nothing is under way.
    hook: the core count the model server's CPU hook must be told now; None when it knows. Growth: quota first, then threads;
    shrink: threads first, then quota.
    sure: no resize is under way, so that what is measured now was measured on `cores`. A quota changes a tenth of a second
        after its patch and is confirmed a second after it; what a surge brings in between would be learned as that of the
        smaller size.
    """

    cores: float
    coming: float | None = None
    hook: float | None = None
    sure: bool = True

    def patched(self, cores: float) -> Size:
        """A resize to `cores` was asked for and will be in force soon."""
        if cores < self.cores:
            return Size(cores, None, cores, sure=False)
        return Size(self.cores, cores if cores > self.cores else None, sure=cores == self.cores and self.sure)

    def actuated(self, cores: float) -> Size:
        """`cores` are in force."""
        return Size(cores, None, cores)

    def measured(self, rows: int, seconds: float, model: LatencyModel, slots: int = 1) -> Size:
        """A batch of `rows`, one of `slots` at once, took `seconds`: one that already fits the larger size proves the growth
        before its confirmation."""
        if self.coming is None:
            return self
        slow, fast = model.predict_s(rows, self.cores / slots), model.predict_s(rows, self.coming / slots)
        return self.actuated(self.coming) if seconds < math.sqrt(slow * fast) and fast < 0.9 * slow else self
