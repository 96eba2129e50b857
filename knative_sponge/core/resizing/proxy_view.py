"""How a proxy should see its size, and which messages bring it to that view. It does not know who asks for sizes."""

from __future__ import annotations

from dataclasses import dataclass

from knative_sponge.core.resizing.events import Tell
from knative_sponge.core.resizing.phase import Phase


@dataclass(frozen=True, slots=True)
class ProxyView:
    """A pod's size as its proxy should see it (`core/demand/planned_size.py` is the proxy's own side of it).

    cores: surely in force; during a shrink the smaller size. coming: a larger size that was accepted and is not in force yet.
    shown: the pod's status shows `cores`, so they are actuated and not only patched.
    """

    cores: float
    coming: float | None
    shown: bool

    def updates_since(self, told: ProxyView | None) -> list[Tell]:
        """The messages, in order, for a proxy that was told `told` before; None: what it was told is unknown."""
        tells: list[Tell] = []
        coming = None if told is None else told.coming
        if self._differs_from(told):
            # A proxy takes a larger size at once only when it is actuated. These cores are surely in force.
            upwards = told is not None and self.cores > told.cores
            tells.append(Tell(Phase.ACTUATED if self.shown or upwards else Phase.PATCHED, self.cores))
            coming = None
        if self.coming != coming:
            # PATCHED announces a growth. It also takes one back that will not come: it then carries the present cores.
            tells.append(Tell(Phase.PATCHED, self.cores if self.coming is None else self.coming))
        return tells

    def _differs_from(self, told: ProxyView | None) -> bool:
        return told is None or told.cores != self.cores or (self.shown and not told.shown)
