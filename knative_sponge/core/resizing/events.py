"""What a pod's resize is told and what it asks for. Values only.

Events go in, commands come out: `PodResize.handle(event, now) -> list[ResizeCommand]`. The shell executes the commands of one
event in order, and those of a later event after them; it waits for no answer before the next command, but sends a `Patch`
only when the `Tell` before it was answered or its own (short) bound for that has passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from knative_sponge.core.resizing.phase import Phase

FailureKind = Literal["conflict", "refused", "quota", "gone", "busy"]
ReportKind = Literal["Resized", "ResizeDeferred", "ResizeInfeasible", "ResizeFailed", "ResizeStuck", "MemoryResized"]


@dataclass(frozen=True, slots=True)
class Target:
    """The size that the pod should have, in cores; rounded to the millicore, at least one. The latest one counts.

    need: what of it the pod needs, where that is less; None where it is all.
    """

    cores: float
    need: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.cores < math.inf:
            raise ValueError(f"cores must be above 0 and finite, not {self.cores}")
        object.__setattr__(self, "cores", max(round(self.cores, 3), 0.001))


@dataclass(frozen=True, slots=True)
class Extra:
    """due: the next patch has more to carry than cores, so there shall be one even where the cores are right; or no more."""

    due: bool


@dataclass(frozen=True, slots=True)
class PatchDone:
    """The API server accepted the patch. generation: the pod's in its answer; 0 where that is not known."""

    cores: float
    generation: int = 0


@dataclass(frozen=True, slots=True)
class PatchFailed:
    """The patch was not accepted, or nobody knows.

    kind: conflict (409), refused (422 and other 4xx), quota (403: ResourceQuota, LimitRange), gone (404), busy (429, 5xx, a
    broken connection, a timeout: the patch may have been applied all the same). message: the API server's words.
    """

    cores: float
    kind: FailureKind
    message: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """The proxy answered a Tell, or did not."""

    phase: Phase
    ok: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """The proxy was reached anew. It may have restarted with its start size, so it is told everything again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The pod as the watch shows it.

    request: its size in spec. in_force: its size in status; None while that is not reported. allocated: what the kubelet
    admitted, where reported. pending: '', 'Deferred' or 'Infeasible'; progress: '', 'InProgress' or 'Error'; message: of
    that condition. generation: of spec; observed: the generation that the status is about. Both are 0 where unknown.
    """

    request: float
    in_force: float | None
    pending: str = ""
    progress: str = ""
    message: str = ""
    generation: int = 0
    observed: int = 0
    allocated: float | None = None


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """The node has more to give: what it could never do may be possible now."""


@dataclass(frozen=True, slots=True)
class QuotaFreed:
    """Somebody in the namespace has given cores back: what a quota refused may be granted now."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time asked for with WakeAt has come; that request is used up. An early or superfluous tick does no harm."""


ResizeEvent = Target | Extra | PatchDone | PatchFailed | Told | Connected | Seen | NodeChanged | QuotaFreed | Tick


@dataclass(frozen=True, slots=True)
class Patch:
    """Set request and limit in spec; answer with PatchDone or PatchFailed, always and in bounded time."""

    cores: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the proxy (`PUT /sponge/v1/cores`); answer with Told."""

    phase: Phase
    cores: float


@dataclass(frozen=True, slots=True)
class Report:
    """Tell people: the reason of a Kubernetes event, and a sentence."""

    kind: ReportKind
    message: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick at this time, in place of the one asked for before; None means no tick is needed."""

    at_s: float | None


ResizeCommand = Patch | Tell | Report | WakeAt
