"""The ServerlessService (SKS) that makes Knative route to a revision: what it shall be; pure functions on dicts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from knative_sponge.controller.annotations import METRIC_ANNOTATION
from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions.status import since


class Mode(StrEnum):
    """Where the revision's public Service sends requests."""

    SERVE = "Serve"
    """To its pods."""
    PROXY = "Proxy"
    """To the activator, which buffers while there is no pod."""


def wanted(autoscaler: Object, mode: Mode) -> Object:
    """The SKS of a PodAutoscaler, as Knative's own classes make it (docs/knative-contract.md §3.4)."""
    metadata = autoscaler["metadata"]
    spec = autoscaler["spec"]
    annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != METRIC_ANNOTATION}
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "ServerlessService",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": dict(metadata.get("labels") or {}),
            "annotations": annotations,
            "ownerReferences": [
                {
                    "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
                    "kind": "PodAutoscaler",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "mode": mode.value,
            "numActivators": 0,
            "objectRef": dict(spec["scaleTargetRef"]),
            "protocolType": spec["protocolType"],
        },
    }


def owned(service: Object, autoscaler: Object) -> bool:
    """Was the SKS made for this PodAutoscaler, not for another of the same name or by somebody else?"""
    owners = service["metadata"].get("ownerReferences") or ()
    uid = autoscaler["metadata"]["uid"]
    return any(owner.get("controller") and owner["uid"] == uid for owner in owners)


def differs(service: Object, wish: Object) -> bool:
    """Does the spec say something else? Left-out fields count as their zero values."""
    spec = service.get("spec") or {}
    return any((spec.get(name) or type(value)()) != value for name, value in wish["spec"].items())


def settled(service: Object | None, mode: Mode) -> bool:
    """Has Knative acted on the mode: is the public Service pointed there?"""
    if service is None or (service.get("spec") or {}).get("mode") != mode:
        return False
    status = service.get("status") or {}
    if status.get("observedGeneration", 0) < service["metadata"].get("generation", 0):
        return False
    if mode is Mode.PROXY:
        return condition(service, "ActivatorEndpointsPopulated") == "True"
    return True


def proxied_since(service: Object | None) -> datetime | None:
    """Since when the public Service points to the activator; None while it does not."""
    return since(service or {}, "ActivatorEndpointsPopulated", "True") if settled(service, Mode.PROXY) else None


def condition(item: Object | None, name: str) -> str:
    """Status of a condition: `True`, `False` or `Unknown`, which absent ones are."""
    conditions = ((item or {}).get("status") or {}).get("conditions") or ()
    found: str = next((entry.get("status", "Unknown") for entry in conditions if entry["type"] == name), "Unknown")
    return found
