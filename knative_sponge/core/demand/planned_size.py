"""How many cores to plan with while a resize is under way (docs/design.md §4.11)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from knative_sponge.core.latency.model import LatencyModel


@dataclass(frozen=True, slots=True)
class Size:
    """The model server's size as the proxy knows it.

    cores: surely in force; the proxy plans with them. Between *patched* and *actuated* they are the smaller of the two sizes.
    coming: the larger size that was patched and is not confirmed yet; None when no growth is under way.
    hook: the core count that the model server's CPU hook must be told now; None when it knows it. A growth sets the quota
        first, then the threads; a shrink sets the threads first, then the quota.
    sure: no resize is under way, so a batch measured now ran on `cores`. A quota changes a tenth of a second after its patch
        and is confirmed a second after it. In between, a batch of a surge would be learned as one on the smaller size.
    """

    cores: float
    coming: float | None = None
    hook: float | None = None
    sure: bool = True

    def patched(self, cores: float) -> Size:
        """The size after the message *patched*: a resize to `cores` was accepted and will be in force soon."""
        if cores < self.cores:
            return Size(cores, None, cores, sure=False)
        return Size(self.cores, cores if cores > self.cores else None, sure=cores == self.cores and self.sure)

    def actuated(self, cores: float) -> Size:
        """The size after the message *actuated*: `cores` are in force."""
        return Size(cores, None, cores)

    def measured(self, rows: int, seconds: float, model: LatencyModel, slots: int = 1) -> Size:
        """The size after a batch of `rows`, one of `slots` at once, took `seconds`.

        A batch that is as fast as on the larger size proves the growth before its confirmation.
        """
        if self.coming is None:
            return self
        slow, fast = model.predict_s(rows, self.cores / slots), model.predict_s(rows, self.coming / slots)
        return self.actuated(self.coming) if seconds < math.sqrt(slow * fast) and fast < 0.9 * slow else self
