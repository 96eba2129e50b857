"""What a proxy was told of its size, and what it must be told next; who asks for sizes is not known here."""

from __future__ import annotations

from dataclasses import dataclass

from knative_sponge.core.resizing.events import Tell
from knative_sponge.core.resizing.phase import Phase


@dataclass(frozen=True, slots=True)
class Briefing:
    """A size as the proxy should think of it (compare `core.demand.size.Size`).

    cores: surely in force now, or smaller and on its way. coming: a larger size that was accepted and is not in force yet.
    shown: the pod's status shows `cores`, so that they are actuated, not only patched.
    """

    cores: float
    coming: float | None
    shown: bool

    def since(self, told: Briefing | None) -> list[Tell]:
        """What to say, in order, to a proxy that was told `told`; None when that is not known."""
        tells: list[Tell] = []
        coming = None if told is None else told.coming
        if self._is_news(told):
            # Upwards only ACTUATED counts at once; these cores are in force at least, whatever else is under way.
            upwards = told is not None and self.cores > told.cores
            tells.append(Tell(Phase.ACTUATED if self.shown or upwards else Phase.PATCHED, self.cores))
            coming = None
        if self.coming != coming:
            # A growth that does not come is taken back in the same way as a smaller one would be announced.
            tells.append(Tell(Phase.PATCHED, self.cores if self.coming is None else self.coming))
        return tells

    def _is_news(self, told: Briefing | None) -> bool:
        return told is None or told.cores != self.cores or (self.shown and not told.shown)
