"""The objects of a large cluster, shaped like real ones (tests/controller/objects); pure.

Revision r has its pods spread over the nodes, so that each node has as many pods of ours as any other.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from knative_sponge.controller.annotations import (
    CLASS,
    CLASS_ANNOTATION,
    REVISION_LABEL,
    ROUTING_STATE_LABEL,
    SCALING_ANNOTATION,
    SERVICE_LABEL,
    SLO_ANNOTATION,
)
from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions.serverless_service import Mode, wanted
from tests.controller.admission_kit import container
from tests.controller.sized_pod import running

NAMESPACE: Final = "models"
CONFIGURATION_LABEL: Final = "serving.knative.dev/configuration"
_SINCE: Final = "2026-11-22T08:09:44Z"


@dataclass(frozen=True, slots=True)
class Shape:
    """The cluster's size. short: share of nodes that cannot give their pods' wants. hybrid: one in so many revisions is so."""

    nodes: int = 200
    pods: int = 2000
    revisions: int = 200
    foreign: int = 1000
    cores: float = 48.0
    short: float = 0.1
    short_cores: float = 12.0
    hybrid: int = 10

    def cores_of(self, node: int) -> float:
        """Allocatable cores of a node."""
        return self.short_cores if node < self.short * self.nodes else self.cores

    def scaling(self, revision: int) -> str:
        """The scaling mode of a revision."""
        return "hybrid" if self.hybrid and revision % self.hybrid == 0 else "vertical"


def revision_name(number: int) -> str:
    """The revision's name; each is the first of its Service."""
    return f"svc{number:04d}-00001"


def address(pod: int) -> str:
    """The address of a pod's proxy, on this machine's loopback."""
    return f"127.{10 + (pod >> 16)}.{pod >> 8 & 255}.{pod & 255}"


def node(number: int, shape: Shape) -> Object:
    """A node, with conditions and images as kubelets report them."""
    images = [{"names": [f"registry.example/image-{i}@sha256:{i:064x}"], "sizeBytes": 10**8 + i} for i in range(30)]
    conditions = [
        {"type": kind, "status": "False", "lastHeartbeatTime": _SINCE, "reason": f"KubeletHasNo{kind}"}
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    amounts = {"cpu": str(shape.cores_of(number)), "memory": "256Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number:04d}", "uid": f"uid-node-{number}", "labels": {"zone": "a"}},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": conditions, "images": images},
    }


class PodTemplate:
    """A pod as Knative makes it, our webhook changes it and a kubelet reports it; copied for each pod."""

    def __init__(self) -> None:
        self._pod = running(scaling="vertical")
        self._pod["metadata"]["managedFields"] = [_managed_fields(self._pod, who) for who in ("controller", "kubelet")]

    def make(self, number: int, revision: int, node: int, cores: float, shape: Shape) -> Any:
        """Pod `number`, with so many cores."""
        pod = copy.deepcopy(self._pod)
        name, text = revision_name(revision), f"{round(cores * 1000)}m"
        service = name.removesuffix("-00001")
        pod["metadata"] |= {
            "name": f"{name}-deployment-{number:05d}",
            "namespace": NAMESPACE,
            "uid": f"uid-pod-{number}",
        }
        pod["metadata"]["labels"] |= {REVISION_LABEL: name, SERVICE_LABEL: service, CONFIGURATION_LABEL: service}
        pod["metadata"]["annotations"][SCALING_ANNOTATION] = shape.scaling(revision)
        pod["spec"]["nodeName"] = f"node-{node:04d}"
        pod["status"]["podIP"] = address(number)
        pod["metadata"]["ownerReferences"] = [
            _owner("apps/v1", "ReplicaSet", f"{name}-deployment-6d", f"uid-rs-{revision}")
        ]
        serving = container(pod, "user-container")
        serving["image"] = f"registry.example/model-{revision}@sha256:{revision:064x}"
        (seen,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == "user-container")
        seen["allocatedResources"]["cpu"] = text
        for resources in (serving["resources"], seen["resources"]):
            for amounts in resources.values():
                amounts["cpu"] = text
        return pod


def foreign_pod(number: int, node: int) -> Object:
    """A pod that is not ours to size and takes 200m."""
    pod = copy.deepcopy(_FOREIGN)
    pod["metadata"] |= {"name": f"other-{number:05d}", "uid": f"uid-other-{number}"}
    pod["spec"]["nodeName"] = f"node-{node:04d}"
    return pod


def revision_objects(number: int, pods: int, shape: Shape) -> dict[str, Object]:
    """PodAutoscaler, Revision, ServerlessService, Deployment and ReplicaSet of a revision with so many pods, by plural."""
    name = revision_name(number)
    service = name.removesuffix("-00001")
    labels = {"app": name, REVISION_LABEL: name, SERVICE_LABEL: service, CONFIGURATION_LABEL: service}
    scaling = shape.scaling(number)
    annotations = {
        CLASS_ANNOTATION: CLASS,
        SLO_ANNOTATION: "500ms",
        SCALING_ANNOTATION: scaling,
        "autoscaling.knative.dev/min-scale": str(pods),
        "autoscaling.knative.dev/max-scale": str(pods),
    }
    autoscaler: Object = {
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-pa-{number}",
            "generation": 1,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "protocolType": "http1",
            "reachability": "Reachable",
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{name}-deployment"},
        },
    }
    sks = wanted(autoscaler, Mode.PROXY if scaling == "hybrid" else Mode.SERVE)
    sks["metadata"] |= {"uid": f"uid-sks-{number}", "generation": 1}
    sks["status"] = {
        "observedGeneration": 1,
        "serviceName": name,
        "privateServiceName": f"{name}-private",
        "conditions": [
            {"type": "ActivatorEndpointsPopulated", "status": str(scaling == "hybrid"), "lastTransitionTime": _SINCE},
            {"type": "Ready", "status": "True", "lastTransitionTime": _SINCE},
        ],
    }
    revision: Object = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-rev-{number}",
            "labels": labels | {ROUTING_STATE_LABEL: "active"},
            "annotations": annotations,
        },
        "spec": {"containers": [{"name": "user-container", "image": f"registry.example/model-{number}"}]},
    }
    deployment: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{name}-deployment",
            "namespace": NAMESPACE,
            "uid": f"uid-dep-{number}",
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [_owner("serving.knative.dev/v1", "Revision", name, f"uid-rev-{number}")],
        },
        "spec": {"replicas": pods, "template": {"spec": _FOREIGN["spec"]}},
        "status": {
            "replicas": pods,
            "readyReplicas": pods,
            "conditions": [{"type": "Progressing", "status": "True"}],
        },
    }
    replica_set: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name}-deployment-6d",
            "namespace": NAMESPACE,
            "uid": f"uid-rs-{number}",
            "labels": labels,
            "ownerReferences": [_owner("apps/v1", "Deployment", f"{name}-deployment", f"uid-dep-{number}")],
        },
        "spec": deployment["spec"],
    }
    return {
        "podautoscalers": autoscaler,
        "revisions": revision,
        "serverlessservices": sks,
        "deployments": deployment,
        "replicasets": replica_set,
    }


def _owner(group: str, kind: str, name: str, uid: str) -> Object:
    return {"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": True, "blockOwnerDeletion": True}


def _managed_fields(pod: Object, manager: str) -> Object:
    """The record of who wrote which field. It is about as long as the fields themselves."""

    def fields(part: Any) -> Any:
        if isinstance(part, dict):
            return {f"f:{name}": fields(value) for name, value in part.items()}
        if isinstance(part, list):
            return {
                f'k:{{"name":"{one["name"]}"}}': fields(one) for one in part if isinstance(one, dict) and "name" in one
            }
        return {}

    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": _SINCE,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields({"spec": pod["spec"]} if manager == "controller" else {"status": pod["status"]}),
    }


_FOREIGN: Final[Object] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"namespace": "others", "labels": {"app": "other"}},
    "spec": {
        "containers": [
            {
                "name": "app",
                "image": "registry.example/app:1",
                "env": [{"name": f"SETTING_{i}", "value": "x" * 40} for i in range(30)],
                "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}},
            }
        ]
    },
    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
}
