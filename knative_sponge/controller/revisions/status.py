"""The status of a PodAutoscaler of our class, computed from a few facts; nothing is written here.

Knative copies this status to the Revision (docs/knative-contract.md §3.3). The rule that matters most: a condition that is
False
before the revision was ready once fails the Revision with "Initial scale was never achieved". So before that none is False,
unless the revision is given up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from knative_sponge.controller.kube.resource import Object

_QUEUED = "Requests to the target are being buffered as resources are provisioned."
_IDLE = "NoTraffic"
_NO_TRAFFIC = "The target is not receiving traffic."
_GIVEN_UP = "TimedOut"
_NOT_ACTIVATED = "The target could not be activated."
_UNSEEN = (
    "Idle, but not scaled to zero: the activators' metrics cannot be read, so that nobody would notice the next request. "
    "Set metrics-protocol to prometheus in config-observability and restart the activators."
)
_LONG_AGO = "1970-01-01T00:00:00Z"
_PARTS = ("Active", "ScaleTargetInitialized", "SKSReady")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition without its time. status: `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        if self.status not in ("True", "False", "Unknown"):
            raise ValueError(f"a condition is True, False or Unknown, not {self.status!r}")


@dataclass(frozen=True, slots=True)
class StatusFacts:
    """What the status is computed from.

    generation: of the PodAutoscaler. goal: pods that the revision shall have. threshold: with so many ready pods the revision
    is active, or has started. ready: ready pods; None is not known. service, private: names of the Services in the SKS's
    status, empty until Knative made them. service_ready: the SKS is ready. initialized: the revision was ready once. not_owned:
    the SKS belongs to somebody else. activators_unseen: the revision is idle, but keeps its pods because the activators cannot
    be read. given_up: it has no pods because none got ready.
    """

    generation: int
    goal: int
    threshold: int
    ready: int | None
    service: str
    private: str
    service_ready: bool
    initialized: bool
    not_owned: bool = False
    activators_unseen: bool = False
    given_up: bool = False


def initialized_since(autoscaler: Object) -> datetime | None:
    """When the revision was first ready; None when it never was. Once set it never changes."""
    return since(autoscaler, "ScaleTargetInitialized", "True")


def idle_since(autoscaler: Object) -> datetime | None:
    """Since when the status calls the revision idle; None while it does not."""
    return since(autoscaler, "Active", "False", _IDLE)


def given_up_since(autoscaler: Object) -> datetime | None:
    """When the revision was given up; None when it was not, or is tried again."""
    return since(autoscaler, "Active", "False", _GIVEN_UP)


def queued_since(autoscaler: Object) -> datetime | None:
    """Since when too few pods of the revision are ready; None while enough are."""
    return since(autoscaler, "Active", "Unknown")


def since(item: Object, name: str, status: str, reason: str | None = None) -> datetime | None:
    """Since when a condition has this status and reason; None while it has not. reason: None matches any."""
    for entry in (item.get("status") or {}).get("conditions") or ():
        if entry["type"] == name:
            if entry.get("status") != status or reason not in (None, entry.get("reason")):
                return None
            return datetime.fromisoformat(entry.get("lastTransitionTime") or _LONG_AGO)
    return None


def conditions(facts: StatusFacts, name: str) -> tuple[Condition, ...]:
    """Active, ScaleTargetInitialized, SKSReady, and Ready as all three together. `name` is the autoscaler's."""
    started = facts.initialized or _started(facts)
    parts = (
        _active(facts, name, started),
        Condition("ScaleTargetInitialized", "True" if started else "Unknown"),
        Condition("SKSReady", "True")
        if facts.service_ready
        else Condition("SKSReady", "Unknown", "NotReady", "The revision's Services have no ready endpoint."),
    )
    return (*parts, _ready(parts))


def status(autoscaler: Object, facts: StatusFacts, now: datetime) -> Object | None:
    """The new status; None when the present one says the same. now: wall clock.

    A condition keeps its lastTransitionTime while its status, reason and message stay the same.
    """
    old = autoscaler.get("status") or {}
    name = autoscaler["metadata"]["name"]
    new: Object = {
        "observedGeneration": facts.generation,
        "serviceName": facts.service,
        "metricsServiceName": facts.private,
        "desiredScale": facts.goal,
        "conditions": _timed(conditions(facts, name), old.get("conditions") or (), now),
    }
    if facts.ready is not None:
        new["actualScale"] = facts.ready
    return None if all(old.get(field) == value for field, value in new.items()) else new


def _started(facts: StatusFacts) -> bool:
    """Are enough pods ready for the first time? A revision that starts at zero pods has a threshold of zero."""
    enough = facts.goal > 0 or facts.threshold == 0
    return bool(facts.service) and enough and (facts.ready or 0) >= facts.threshold


def _active(facts: StatusFacts, name: str, started: bool) -> Condition:
    if facts.not_owned:
        message = f'There is an existing ServerlessService "{name}" that we do not own.'
        return Condition("Active", "False", "NotOwned", message)
    if facts.given_up:
        return Condition("Active", "False", _GIVEN_UP, _NOT_ACTIVATED)
    if facts.goal == 0:
        return Condition("Active", "False" if started else "Unknown", _IDLE, _NO_TRAFFIC)
    if (facts.ready or 0) >= facts.threshold:
        return (
            Condition("Active", "True", "ActivatorsUnseen", _UNSEEN)
            if facts.activators_unseen
            else Condition("Active", "True")
        )
    return Condition("Active", "Unknown", "Queued", _QUEUED)


def _ready(parts: Iterable[Condition]) -> Condition:
    """As the first part that is False, else the first that is Unknown, else True."""
    by_type = {part.type: part for part in parts}
    for wanted in ("False", "Unknown"):
        for name in _PARTS:
            part = by_type[name]
            if part.status == wanted:
                return Condition("Ready", wanted, part.reason, part.message)
    return Condition("Ready", "True")


def _timed(new: Iterable[Condition], old: Iterable[Object], now: datetime) -> list[Object]:
    before = {entry["type"]: entry for entry in old}
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    timed = []
    for condition in sorted(new, key=lambda condition: condition.type):
        entry: Object = {"type": condition.type, "status": condition.status}
        if condition.reason:
            entry["reason"] = condition.reason
        if condition.message:
            entry["message"] = condition.message
        past = before.get(condition.type, {})
        same = all(past.get(field, "") == entry.get(field, "") for field in ("status", "reason", "message", "severity"))
        entry["lastTransitionTime"] = past.get("lastTransitionTime", stamp) if same else stamp
        timed.append(entry)
    return timed
