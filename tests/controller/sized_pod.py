"""A running pod of a revision, as stock Knative made it, our webhook changed it and a kubelet reports it."""

from __future__ import annotations

import json
from typing import Any

from knative_sponge.controller.annotations import (
    OWNER_UID_LABEL,
    REVISION_LABEL,
    SERVICE_LABEL,
    read_settings,
    sponge_annotations,
)
from knative_sponge.controller.cluster.ownership import Owned
from knative_sponge.controller.cluster.pod import PodView, view
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import INTERNAL
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


def viewed(pod: Any, admitted: float = 0.0) -> PodView:
    """The pod as a value, with the settings that its annotations say: Knative copies them from the Revision. admitted: cores
    that are proven of it."""
    owned = Copied().owned(pod)
    return view(pod, None if owned is None else owned.settings, proven=admitted)


class Copied:
    """Stands in for `Ownership`, for pods whose owners are no matter: Knative copies a Revision's annotations to its pods.

    admitted: cores that are proven of each pod.
    """

    def __init__(self, admitted: float = 0.0) -> None:
        self.admitted = admitted

    def owned(self, pod: Any) -> Owned | None:
        annotations = {
            key: value
            for key, value in sponge_annotations(pod["metadata"].get("annotations") or {}).items()
            if key not in INTERNAL
        }
        try:
            labels = pod["metadata"].get("labels") or {}
            service, owner = labels.get(SERVICE_LABEL) or "", labels.get(OWNER_UID_LABEL) or ""
            return Owned(read_settings(annotations), service, owner, admitted=self.admitted)
        except SettingError:
            return None

    def subscribe(self, _subscriber: Any) -> None:
        pass


def owners_of(pod: Any) -> dict[str, Any]:
    """The ReplicaSet, Deployment and Revision of a pod, by plural; each names the next, and the Revision has the pod's
    annotations. It changes the pod, so that it names the ReplicaSet."""
    metadata = pod["metadata"]
    namespace, revision = metadata["namespace"], metadata["labels"][REVISION_LABEL]
    service = metadata["labels"].get(SERVICE_LABEL) or ""
    labels = {REVISION_LABEL: revision, SERVICE_LABEL: service}
    annotations = {
        key: value
        for key, value in sponge_annotations(metadata.get("annotations") or {}).items()
        if key not in INTERNAL
    }

    def owner(kind: str, group: str, name: str) -> dict[str, Any]:
        return {"apiVersion": group, "kind": kind, "name": name, "uid": f"u-{kind}-{name}", "controller": True}

    above = [
        ("replicasets", owner("ReplicaSet", "apps/v1", f"{revision}-deployment-6d")),
        ("deployments", owner("Deployment", "apps/v1", f"{revision}-deployment")),
        ("revisions", owner("Revision", "serving.knative.dev/v1", revision)),
    ]
    metadata["ownerReferences"] = [above[0][1]]
    made: dict[str, Any] = {}
    for number, (plural, one) in enumerate(above):
        made[plural] = {
            "apiVersion": one["apiVersion"],
            "kind": one["kind"],
            "metadata": {
                "name": one["name"],
                "namespace": namespace,
                "uid": one["uid"],
                "labels": labels,
                "ownerReferences": [owner for _, owner in above[number + 1 : number + 2]],
            },
            "spec": {},
        }
    made["revisions"]["metadata"]["annotations"] = annotations
    return made
