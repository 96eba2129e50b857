"""What is known of one pod's size, and the phase and the proxy's view that follow from it. It decides no patch.

`core/resizing/machine.py` does that. Its theory of operation explains the names of the facts and the order of the phases.
"""

from __future__ import annotations

import math
from enum import StrEnum

from knative_sponge.core.resizing.events import Seen
from knative_sponge.core.resizing.proxy_view import ProxyView


class ResizePhase(StrEnum):
    """Where a pod's resize stands; see the theory of operation."""

    STEADY = "steady"
    PATCHING = "patching"
    PATCHED = "patched"
    IN_PROGRESS = "in-progress"
    DEFERRED = "deferred"
    INFEASIBLE = "infeasible"
    ERROR = "error"
    GONE = "gone"


class ResizeFacts:
    """Sizes in cores. rounding: an in-force size this close to spec counts as spec."""

    def __init__(self, rounding: float) -> None:
        self.spec: float | None = None
        self.in_force: float | None = None
        """As last reported. It stays while a restarting container has no status."""
        self.shown = False
        """Whether status reports a size in force now."""
        self.flight: float | None = None
        self.doubt: float | None = None
        self.known = False
        """Whether a fresh status was ever seen. Before that nothing is patched, and the proxy is told nothing."""
        self.message = ""
        """The kubelet's message, of its present condition."""
        self.last_steady: float | None = None
        """The last size at which the phase was STEADY."""
        self._rounding = rounding
        self._allocated = 0.0
        self._lowest = math.inf
        self._generation = 0
        self._fresh = False
        self._pending = self._progress = ""

    @property
    def verdict(self) -> ResizePhase:
        """The phase by kubelet and API server alone, without a patch in flight and without the end of the pod."""
        if self._fresh:
            if self._pending:
                return ResizePhase.INFEASIBLE if self._pending == "Infeasible" else ResizePhase.DEFERRED
            if self._progress == "Error":
                return ResizePhase.ERROR
            if self.shown and self.doubt is None and self.same(self.in_force, self.spec):
                return ResizePhase.STEADY
            if self._progress:
                return ResizePhase.IN_PROGRESS
        return ResizePhase.PATCHED

    @property
    def asked(self) -> float:
        """See `PodResize.asked`. A shrink counts once it is accepted, a growth from when it is under way."""
        return max(self.spec or 0.0, self.flight or 0.0, 0.0 if self.doubt is None else self.doubt)

    @property
    def committed(self) -> float:
        """Cores that the pod takes, or may take, of its node; 0 before it was seen."""
        return max(size or 0.0 for size in (self.spec, self.in_force, self._allocated, self.flight, self.doubt))

    @property
    def proxy_view(self) -> ProxyView | None:
        """How the proxy should see its size; None while too little is known to tell it anything."""
        if not self.known or self.in_force is None or self.spec is None:
            return None
        applied = self.spec if self.same(self.in_force, self.spec) else self.in_force
        cores = min(applied, self._lowest, self.flight or math.inf)
        coming = min(self.spec, self.flight or math.inf)
        barred = self.verdict in (ResizePhase.DEFERRED, ResizePhase.INFEASIBLE, ResizePhase.ERROR)
        return ProxyView(cores, coming if coming > cores and not barred else None, shown=cores == applied)

    def see(self, seen: Seen) -> None:
        """The watch showed the pod."""
        self.shown = seen.in_force is not None
        if seen.in_force is not None:
            self.in_force = seen.in_force
        self._allocated = seen.allocated or 0.0
        if seen.generation < self._generation:
            return  # this object is older than the answer to a patch
        self._generation = seen.generation
        self.spec = seen.request
        self._lowest = min(self._lowest, seen.request)
        self._fresh = not seen.observed or seen.observed >= seen.generation
        self._pending, self._progress, self.message = seen.pending, seen.progress, seen.message
        if self._fresh and seen.in_force is not None and not self.known:
            # A resize from before this controller's start may still be under way.
            self.known = True
            self._lowest = min(self._lowest, seen.in_force, seen.allocated or math.inf)

    def accept(self, cores: float, generation: int) -> bool:
        """The API server accepted a patch. Returns whether it changed the pod, so that the kubelet has something new to do."""
        changed = generation > self._generation or not equal(cores, self.spec)
        if changed:
            self._fresh = False
            self._pending = self._progress = self.message = ""
        self.flight = self.doubt = None
        self.spec = cores
        self._lowest = min(self._lowest, cores)
        self._generation = max(self._generation, generation)
        return changed

    def lose(self, cores: float) -> None:
        """The answer to a patch was lost, so the patch may have been applied."""
        self.flight = None
        self.doubt = max(cores, self.doubt or 0.0)
        self._lowest = min(self._lowest, cores)

    def forget_superseded(self) -> None:
        """Forget older sizes once the verdict shows that none of them can come into force any more."""
        match self.verdict:
            case ResizePhase.STEADY if self.spec is not None:
                self._lowest = self.last_steady = self.spec
            case ResizePhase.DEFERRED | ResizePhase.INFEASIBLE if self.in_force is not None and self.doubt is None:
                if not self._progress and self.same(self._allocated or self.in_force, self.in_force):
                    held = self.last_steady
                    self._lowest = held if held and self.same(held, self.in_force) else self.in_force

    def same(self, one: float | None, other: float | None) -> bool:
        """Whether both are one size, within the kubelet's rounding."""
        return one is not None and other is not None and abs(one - other) <= self._rounding


def equal(one: float, other: float | None) -> bool:
    """Whether both are one size on the millicore grid."""
    return other is not None and abs(one - other) < 0.0005
