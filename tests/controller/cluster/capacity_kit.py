"""A cluster of nodes and pods as informers tell of it, and pods for it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from knative_sponge.controller.cluster.capacity import ClusterCapacity
from knative_sponge.controller.cluster.node import kept_of_node
from knative_sponge.controller.cluster.pod_request import kept_of_pod
from knative_sponge.controller.kube.informer import Changed, key_of
from knative_sponge.controller.kube.resource import Object
from tests.controller.admission_kit import container
from tests.controller.sized_pod import Copied, running


class Feed:
    """Tells what an informer would that keeps so much of each object."""

    def __init__(self, keep: Callable[[Object], Object]) -> None:
        self._keep = keep
        self.objects: dict[Any, Object] = {}
        self._tell: Any = None
        self.synced = asyncio.Event()

    def subscribe(self, subscriber: Any) -> None:
        self._tell = subscriber

    def get(self, key: Any) -> Object | None:
        return self.objects.get(key)

    def put(self, item: Object) -> None:
        key = key_of(item)
        before = self.objects.get(key)
        after = self.objects[key] = self._keep(copy.deepcopy(item))
        self._tell(Changed(key, before, after))

    def remove(self, key: Any) -> None:
        self._tell(Changed(key, self.objects.pop(key), None))


class World:
    def __init__(self) -> None:
        self.pods, self.nodes = Feed(kept_of_pod), Feed(kept_of_node)
        self.changed: list[str] = []
        self.now = 1000.0
        self.owners = Copied()
        self.cluster = ClusterCapacity(self.pods, self.nodes, self.owners, self.changed.append, lambda: self.now)  # type: ignore[arg-type]


def node(name: str = "n1", cpu: str = "4", *, memory: str = "8Gi", labels: Any = None, **spec: Any) -> Object:
    metadata: Object = {"name": name, "resourceVersion": "1", "managedFields": [], "labels": labels or {}}
    status = {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110"}, "conditions": [{"type": "Ready"}]}
    return {"metadata": metadata, "spec": spec, "status": status}


def ours(name: str, cpu: str = "500m", where: str = "n1", **annotations: str) -> Any:
    pod = running(cpu=cpu, **annotations)  # type: ignore[arg-type]
    pod["metadata"]["name"] = name
    pod["spec"]["nodeName"] = where
    for amounts in container(pod, "user-container")["resources"].values():
        amounts["cpu"] = cpu
    return pod


def theirs(name: str, cpu: str = "1", where: str = "n1", phase: str = "Running", message: str = "") -> Any:
    conditions = (
        [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}] if message else []
    )
    return {
        "metadata": {"namespace": "x", "name": name, "resourceVersion": "1"},
        "spec": {"nodeName": where, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": phase, "conditions": conditions},
    }


def waits(name: str, cpu: str = "1", **spec: Any) -> Any:
    pod = theirs(name, cpu, where="", phase="Pending", message="0/3 nodes are available: 3 Insufficient cpu.")
    pod["spec"] |= spec
    return pod
