"""The objects that Knative makes for one revision, and what a test waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from knative_sponge.controller.annotations import (
    CLASS,
    CLASS_ANNOTATION,
    METRIC_ANNOTATION,
    REVISION_LABEL,
    ROUTING_STATE_LABEL,
)
from knative_sponge.controller.kube.resource import Object

T = TypeVar("T")
NAMESPACE = "models"
NAME = "ocr-00001"
DEPLOYMENT = f"{NAME}-deployment"


def run(body: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; it may take 20 s."""

    async def bounded() -> T:
        async with asyncio.timeout(20):
            return await body

    return asyncio.run(bounded())


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition."""
    while not holds():
        await asyncio.sleep(0.005)


def autoscaler(name: str = NAME, *, class_name: str = CLASS, **annotations: str) -> Object:
    """A PodAutoscaler as the revision reconciler makes it; annotations are `min_scale="2"` and the like."""
    scales = {f"autoscaling.knative.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-pa-{name}",
            "generation": 1,
            "resourceVersion": "7",
            "labels": {"app": name, REVISION_LABEL: name},
            "annotations": {
                CLASS_ANNOTATION: class_name,
                METRIC_ANNOTATION: "",
                "knative-sponge.dev/slo": "1s",
                **scales,
            },
        },
        "spec": {
            "protocolType": "http1",
            "reachability": "Reachable",
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{name}-deployment"},
        },
    }


def revision(name: str = NAME, routing: str | None = "active") -> Object:
    """The Revision, with its routing state label."""
    labels = {ROUTING_STATE_LABEL: routing} if routing is not None else {}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-rev-{name}", "labels": labels},
    }


def deployment(name: str = NAME, *, replicas: int = 1, ready: int = 0, progressing: str = "True") -> Object:
    """The revision's Deployment."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-deployment", "namespace": NAMESPACE, "labels": {REVISION_LABEL: name}},
        "spec": {"replicas": replicas},
        "status": {
            "replicas": replicas,
            "conditions": [{"type": "Progressing", "status": progressing}],
            **({"readyReplicas": ready} if ready else {}),
        },
    }


def service_status(name: str = NAME, *, generation: int = 1, ready: bool = True, activator: bool = False) -> Object:
    """What Knative's controller reports about a ServerlessService."""
    return {
        "observedGeneration": generation,
        "serviceName": name,
        "privateServiceName": f"{name}-private",
        "conditions": [
            {"type": "ActivatorEndpointsPopulated", "status": str(activator)},
            {"type": "EndpointsPopulated", "status": str(ready) if ready else "Unknown"},
            {"type": "Ready", "status": str(ready) if ready else "Unknown"},
        ],
    }


def pod(
    name: str, *, annotations: dict[str, str], containers: tuple[str, ...] = ("user-container", "queue-proxy")
) -> Object:
    """A pod of the revision."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {REVISION_LABEL: NAME},
            "annotations": annotations,
        },
        "spec": {"containers": [{"name": container} for container in containers]},
        "status": {"phase": "Running"},
    }


def item(name: str, **labels: str) -> Object:
    """A pod of the revision with more labels and no annotations."""
    found = pod(name, annotations={})
    found["metadata"]["labels"] |= labels
    return found


def condition(status: Object, name: str) -> Object:
    """One condition of a status, without its time."""
    found = next(entry for entry in status["conditions"] if entry["type"] == name)
    return {key: value for key, value in found.items() if key not in ("type", "lastTransitionTime")}
