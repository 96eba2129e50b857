"""A running pod of a revision, as stock Knative made it, our webhook changed it and a kubelet reports it."""

from __future__ import annotations

import json
from typing import Any

from tests.controller.admission.pod_kit import created
from tests.controller.admission_kit import container, pod_with

IMAGE = "registry.example/hello@sha256:" + "ab" * 32


def running(*, cpu: str = "100m", generation: int = 3, **annotations: str) -> Any:
    """The pod, `cpu` in force, its token in it as older versions left it; annotations are `cpu_limit="burst"` and the like."""
    chosen = {name.replace("_", "-"): value for name, value in annotations.items()}
    pod = created(pod_with({"slo": "500ms"} | chosen))
    proxy = container(pod, "queue-proxy")
    proxy["env"] = [one for one in proxy["env"] if not one["name"].startswith("SPONGE_CONTROL")]
    proxy["env"].append({"name": "SPONGE_CONTROL_TOKEN", "value": "t-1"})
    pod["metadata"] |= {
        "uid": "u-1",
        "generation": generation,
        "resourceVersion": "77",
        "creationTimestamp": "2026-11-22T08:09:44Z",
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:spec": {}}}],
    }
    serving = container(pod, "user-container")
    serving["image"] = IMAGE
    pod["spec"]["nodeName"] = "n1"
    pod["status"] = {
        "phase": "Running",
        "podIP": "10.0.0.7",
        "qosClass": "Burstable",
        "observedGeneration": generation,
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {
                "name": "queue-proxy",
                "containerID": "containerd://1",
                "restartCount": 0,
                "image": "registry.example/queue-proxy",
                "resources": {"requests": {"cpu": "25m"}},
                "allocatedResources": {"cpu": "25m"},
            },
            {
                "name": "user-container",
                "containerID": "containerd://2",
                "restartCount": 4,
                "ready": True,
                "imageID": IMAGE,
                "resources": {
                    "requests": {"cpu": cpu, "memory": "64Mi"},
                    "limits": {"cpu": cpu, "memory": "128Mi"},
                },
                "allocatedResources": {"cpu": cpu, "memory": "64Mi"},
            },
        ],
    }
    return json.loads(json.dumps(pod))


def sized(pod: Any, cores: float) -> None:
    """Somebody resized it to `cores`, in spec and in force."""
    metadata, status = pod["metadata"], pod["status"]
    (seen,) = (one for one in status["containerStatuses"] if one["name"] == "user-container")
    for resources in (container(pod, "user-container")["resources"], seen["resources"]):
        for amounts in resources.values():
            amounts["cpu"] = f"{round(cores * 1000)}m"
    seen["allocatedResources"]["cpu"] = f"{round(cores * 1000)}m"
    metadata["generation"] = status["observedGeneration"] = metadata["generation"] + 1


def resized(pod: Any, body: Any) -> Any:
    """The pod after a strategic-merge patch of `pods/resize`, checked as the API server does (no limit removed is its
    nature: a merge only adds)."""
    for change in body["spec"]["containers"]:
        stored = container(pod, change["name"])
        for kind, amounts in change["resources"].items():
            stored["resources"].setdefault(kind, {}).update(amounts)
    return pod


def conditioned(pod: Any, kind: str, **fields: Any) -> Any:
    """The pod with one more condition that holds."""
    pod["status"]["conditions"].append({"type": kind, "status": "True"} | fields)
    return pod


def status_of(pod: Any, name: str = "user-container") -> Any:
    (found,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == name)
    return found
