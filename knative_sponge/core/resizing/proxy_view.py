"""What a proxy was told of its size, and what it must be told next; who asks for sizes is not known here."""

from __future__ import annotations

from dataclasses import dataclass

from knative_sponge.core.resizing.events import Tell


@dataclass(frozen=True, slots=True)
class ProxyView:
    """A size as the proxy should think of it (compare `core.size.Size`).

    cores: surely in force now, or smaller and on its way. coming: a larger size that was accepted and is not in force yet.
    shown: the pod's status shows `cores`, so that they are actuated, not only patched.
    """

    cores: float
    coming: float | None
    shown: bool

    def updates_since(self, told: ProxyView | None) -> list[Tell]:
        """What to say, in order, to a proxy that was told `told`; None when that is not known."""
        tells: list[Tell] = []
        coming = None if told is None else told.coming
        if self._differs_from(told):
            # Upwards only "actuated" counts at once; these cores are in force at least, whatever else is under way.
            upwards = told is not None and self.cores > told.cores
            tells.append(Tell("actuated" if self.shown or upwards else "patched", self.cores))
            coming = None
        if self.coming != coming:
            # A growth that does not come is taken back in the same way as a smaller one would be announced.
            tells.append(Tell("patched", self.cores if self.coming is None else self.coming))
        return tells

    def _differs_from(self, told: ProxyView | None) -> bool:
        return told is None or told.cores != self.cores or (self.shown and not told.shown)
