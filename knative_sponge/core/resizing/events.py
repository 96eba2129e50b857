"""What a pod's resize is told and what it asks for. Values only.

Events go in, commands come out: `PodResize.handle(event, now) -> list[ResizeCommand]`. The shell executes the commands of one
event in order, and those of a later event after them. It waits for no answer before the next command, with one exception: a
`Patch` is sent only once the `Tell` before it was answered, or once the shell's own short bound for that answer has passed.
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
    """The size that the pod should have, in cores, rounded to the millicore and at least one. The latest target counts.

    need: the part of it that the pod needs; None where it needs all.
    """

    cores: float
    need: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.cores < math.inf:
            raise ValueError(f"cores must be above 0 and finite, not {self.cores}")
        object.__setattr__(self, "cores", max(round(self.cores, 3), 0.001))


@dataclass(frozen=True, slots=True)
class Extra:
    """due: the next patch carries something beside cores, so it is sent even where the cores are right. False: no longer."""

    due: bool


@dataclass(frozen=True, slots=True)
class PatchDone:
    """The API server accepted the patch. generation: the pod's, by its answer; 0 where that is unknown."""

    cores: float
    generation: int = 0


@dataclass(frozen=True, slots=True)
class PatchFailed:
    """The patch was not accepted, or its fate is unknown.

    kind: conflict (409), refused (422 and other 4xx), quota (403: ResourceQuota, LimitRange), gone (404), busy (429, 5xx, a
    broken connection, a timeout; the patch may have been applied all the same). message: the API server's words.
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
    """The proxy was reached anew. It may have restarted with its start size, so it must be told everything again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The pod as the watch shows it.

    request: its size in spec. in_force: its size in status; None while status reports none. allocated: the size that the
    kubelet admitted; None where that is not reported. pending: '', 'Deferred' or 'Infeasible'. progress: '', 'InProgress' or
    'Error'. message: of that condition. generation: of spec. observed: the generation that the status is about. The last two
    are 0 where unknown.
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
    """The node has more to give, so a size that it could never give may be possible now."""


@dataclass(frozen=True, slots=True)
class QuotaFreed:
    """A pod in the namespace has given cores back, so a size that a quota refused may be granted now."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that WakeAt asked for has come. That request is used up. An early or superfluous tick does no harm."""


ResizeEvent = Target | Extra | PatchDone | PatchFailed | Told | Connected | Seen | NodeChanged | QuotaFreed | Tick


@dataclass(frozen=True, slots=True)
class Patch:
    """Set request and limit in spec. The answer, PatchDone or PatchFailed, always comes, and in bounded time."""

    cores: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the proxy (`PUT /sponge/v1/cores`); answer with Told."""

    phase: Phase
    cores: float


@dataclass(frozen=True, slots=True)
class Report:
    """Tell people, by a Kubernetes event. kind: its reason. message: a sentence."""

    kind: ReportKind
    message: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick at this time, in place of the one that was asked for before; None: no tick is needed."""

    at_s: float | None


ResizeCommand = Patch | Tell | Report | WakeAt
