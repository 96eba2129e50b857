"""What any pod of the cluster requests of its node, and whether it waits for a node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from knative_sponge.controller.annotations import REVISION_LABEL
from knative_sponge.controller.cluster.node import SchedulingConstraints
from knative_sponge.controller.cluster.pod import requested
from knative_sponge.controller.cluster.pod_fields import kept_fields
from knative_sponge.controller.kube.resource import Object

_ENDED: Final = ("Succeeded", "Failed")
_LONGEST_FAULT: Final = 200


@dataclass(frozen=True, slots=True)
class PodRequest:
    """What one pod requests.

    node: empty while the pod has none. cores, memory (bytes): 0 once the pod has ended.
    waits_for: set while no node has the cores that the pod requests; what else it asks of a node.
    owner: uid of the pod's controller, such as a ReplicaSet; empty without one, and once the pod has a node.
    fault: why the amounts cannot be read; cores and memory mean nothing then.
    """

    node: str = ""
    cores: float = 0.0
    memory: float = 0.0
    waits_for: SchedulingConstraints | None = None
    owner: str = ""
    fault: str = ""


NO_REQUEST: Final = PodRequest()


def pod_request(pod: Object) -> PodRequest:
    """From the pod's object as the API server has it."""
    status = pod.get("status") or {}
    if status.get("phase") in _ENDED:
        return NO_REQUEST
    node = pod["spec"].get("nodeName") or ""
    try:
        cores, memory = requested(pod), requested(pod, "memory")
    except ValueError as error:
        return PodRequest(node, fault=str(error)[:_LONGEST_FAULT])
    if node:
        return PodRequest(node, cores, memory)
    return PodRequest(
        node, cores, memory, SchedulingConstraints.of(pod) if _lacks_cpu(status) else None, _owner(pod["metadata"])
    )


def kept_of_pod(item: Object) -> Object:
    """`request` is the pod's `PodRequest`. A pod of a revision keeps its `kept_fields` beside it, any other pod only its name.

    A cluster has many pods, and they are large. One informer watches all of them, so that a pod that gets or loses the label
    of a revision is never in two places.
    """
    metadata = item["metadata"]
    request = {"request": pod_request(item)}
    if REVISION_LABEL in (metadata.get("labels") or {}):
        return kept_fields(item) | request
    return {"metadata": {name: metadata[name] for name in ("name", "namespace", "resourceVersion")}} | request


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
