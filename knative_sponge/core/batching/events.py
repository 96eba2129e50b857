"""What a batcher is told and what it asks for. Values only.

Events go in, commands come out: `Batcher.handle(event, now) -> list[BatcherCommand]`. The shell executes all commands of one
event, in order, before it tells of another.
"""

from __future__ import annotations

from dataclasses import dataclass

from knative_sponge.core.batching.work import Work
from knative_sponge.errors import Reason


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request is complete and wants to be served."""

    work: Work


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client of this work is gone; unknown keys are ignored."""

    key: int


@dataclass(frozen=True, slots=True)
class BatchDone:
    """The model server answered a batch.

    infer_s: measured seconds of the upstream call; None takes the time since its dispatch.
    sample: False when the measurement says nothing about the model (an error answer, say).
    """

    batch: int
    infer_s: float | None = None
    sample: bool = True


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """The upstream call ended without an answer; the shell has told the members why. Nothing is sent again.

    broken: the model server's side failed, so its next batch may be a cold start. False when the proxy broke the call off.
    """

    batch: int
    broken: bool = True


@dataclass(frozen=True, slots=True)
class BatchRefused:
    """The model server refused a merged call with a 4xx. Its members are tried again in halves, at last alone (docs/design.md
    §6)."""

    batch: int


@dataclass(frozen=True, slots=True)
class CoresChanged:
    """The model server's size has changed, or is about to.

    cores: to plan with from now on.
    reach: the most cores that one resize can give; None leaves it as it is.
    """

    cores: float
    reach: float | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that WakeAt asked for has come. That request is used up. An early or superfluous tick does no harm."""


BatcherEvent = Arrived | Cancelled | BatchDone | BatchFailed | BatchRefused | CoresChanged | Tick


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send these works upstream as one call; answer with BatchDone, BatchFailed or BatchRefused."""

    batch: int
    works: tuple[Work, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer this work's client with the Reason; the batcher has forgotten the work."""

    work: Work
    reason: Reason


@dataclass(frozen=True, slots=True)
class Abandon:
    """No client waits for this batch any more: break the upstream call off, then report BatchFailed."""

    batch: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick at this time, in place of the one that was asked for before; None: no tick is needed."""

    at_s: float | None


BatcherCommand = Dispatch | Refuse | Abandon | WakeAt
