"""What a pod takes of its node, whoever's it is, and whether it waits for one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from knative_sponge.controller.annotations import REVISION_LABEL
from knative_sponge.controller.cluster.node import SchedulingConstraints
from knative_sponge.controller.cluster.pod import requested
from knative_sponge.controller.cluster.pod_fields import slim
from knative_sponge.controller.kube.resource import Object

_ENDED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodRequest:
    """cores, memory (bytes): what the pod requests; nothing once it has ended. node: empty while it has none.

    waits: what it needs of a node, when it lacks one because none has the cores that it asks for. owner: uid of the controller
    that makes such pods anew, while this one has no node; empty if there is none. fault: why its amounts cannot be read; they
    are not known then.
    """

    node: str = ""
    cores: float = 0.0
    memory: float = 0.0
    waits: SchedulingConstraints | None = None
    owner: str = ""
    fault: str = ""


NOTHING: Final = PodRequest()


def footprint(pod: Object) -> PodRequest:
    """From the pod's whole object."""
    status = pod.get("status") or {}
    if status.get("phase") in _ENDED:
        return NOTHING
    node = pod["spec"].get("nodeName") or ""
    try:
        cores, memory = requested(pod), requested(pod, "memory")
    except ValueError as error:
        return PodRequest(node, fault=str(error))
    if node:
        return PodRequest(node, cores, memory)
    return PodRequest(
        node, cores, memory, SchedulingConstraints.of(pod) if _lacks_cpu(status) else None, _owner(pod["metadata"])
    )


def kept_of_pod(item: Object) -> Object:
    """Its `footprint`, and of a pod of a revision what `pod_fields.slim` leaves; of others only who they are.

    A cluster has many pods, and they are large. All are watched as one: one that gets or loses the label of a revision is
    in one place at any time.
    """
    metadata = item["metadata"]
    taken = {"footprint": footprint(item)}
    if REVISION_LABEL in (metadata.get("labels") or {}):
        return slim(item) | taken
    return {"metadata": {name: metadata[name] for name in ("name", "namespace", "resourceVersion")}} | taken


def of_revision(kept: Object) -> bool:
    """Is it a pod of a revision, as `kept_of_pod` left it?"""
    return "spec" in kept


def _owner(metadata: Object) -> str:
    references = metadata.get("ownerReferences") or ()
    return next((one["uid"] for one in references if one.get("controller")), "")


def _lacks_cpu(status: Object) -> bool:
    return any(
        entry.get("type") == "PodScheduled"
        and entry.get("status") == "False"
        and entry.get("reason") == "Unschedulable"
        and "Insufficient cpu" in (entry.get("message") or "")
        for entry in status.get("conditions") or ()
    )
