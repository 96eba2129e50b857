"""Kubernetes Events, as `kubectl describe` shows them. An Event with the same text is counted, not made again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import EVENTS, Object
from knative_sponge.errors import KubeConflict, KubeError

_log: Final = logging.getLogger(__name__)

_CONTROLLER: Final = "knative-sponge.dev/autoscaler"
_LONGEST_NOTE: Final = 1000
"""Bytes; the API server refuses notes above 1 KiB."""


@dataclass(frozen=True, slots=True)
class Event:
    """One Event. regarding: its object. action: what was being done. reason: one word in CamelCase. note: a sentence."""

    regarding: Object
    type: Literal["Normal", "Warning"]
    action: str
    reason: str
    note: str


class Recorder:
    """Writes Events. pod: name of the reporting pod."""

    def __init__(self, kube: Kube, pod: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._kube = kube
        self._pod = pod
        self._now = now

    async def record(self, event: Event) -> bool:
        """Create the Event, or count it where it exists, as after a change of leader. Logs a failure and returns False."""
        metadata = event.regarding["metadata"]
        stamp = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        name = _name(event)
        try:
            try:
                await self._kube.create(EVENTS, self._body(event, name, stamp), metadata["namespace"])
            except KubeConflict:
                series = {"count": 2, "lastObservedTime": stamp}  # the smallest count that Kubernetes accepts
                await self._kube.patch(EVENTS, name, {"series": series}, metadata["namespace"])
        except KubeError as error:
            _log.warning("event %s could not be recorded: %s", event.reason, error)
            return False
        return True

    def _body(self, event: Event, name: str, stamp: str) -> Object:
        metadata = event.regarding["metadata"]
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": stamp,
            "type": event.type,
            "action": event.action,
            "reason": event.reason,
            "note": event.note.encode(errors="replace")[:_LONGEST_NOTE].decode(errors="ignore"),
            "regarding": {
                "apiVersion": event.regarding["apiVersion"],
                "kind": event.regarding["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reportingController": _CONTROLLER,
            "reportingInstance": self._pod[:128],
        }


def _name(event: Event) -> str:
    """The same name for the same text, so that other replicas and later processes find the Event."""
    metadata = event.regarding["metadata"]
    text = "\0".join((metadata["uid"], event.type, event.reason, event.note))
    return f"{metadata['name'][:200]}.{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:16]}"
