"""The ServerlessService (SKS), by which Knative routes to a revision: what it shall be, and if Knative acted on it. Pure."""

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
    """To the activator, which holds requests while there is no pod."""


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
    """Is this PodAutoscaler the SKS's controller? It is not where another one of that name or somebody else made the SKS."""
    owners = service["metadata"].get("ownerReferences") or ()
    uid = autoscaler["metadata"]["uid"]
    return any(owner.get("controller") and owner["uid"] == uid for owner in owners)


def differs(service: Object, goal: Object) -> bool:
    """Does the SKS's spec differ from that of `goal`? A field that it leaves out counts as the zero value."""
    spec = service.get("spec") or {}
    return any((spec.get(name) or type(value)()) != value for name, value in goal["spec"].items())


def mode_applied(service: Object | None, mode: Mode) -> bool:
    """Has Knative acted on the mode, so that the public Service sends requests there?"""
    if service is None or (service.get("spec") or {}).get("mode") != mode:
        return False
    status = service.get("status") or {}
    if status.get("observedGeneration", 0) < service["metadata"].get("generation", 0):
        return False
    if mode is Mode.PROXY:
        return condition(service, "ActivatorEndpointsPopulated") == "True"
    return True


def proxied_since(service: Object | None) -> datetime | None:
    """Since when the public Service sends requests to the activator; None while it does not."""
    return since(service or {}, "ActivatorEndpointsPopulated", "True") if mode_applied(service, Mode.PROXY) else None


def condition(item: Object | None, name: str) -> str:
    """Status of a condition: `True`, `False` or `Unknown`. A condition that is absent is `Unknown`."""
    conditions = ((item or {}).get("status") or {}).get("conditions") or ()
    found: str = next((entry.get("status", "Unknown") for entry in conditions if entry["type"] == name), "Unknown")
    return found
