"""A node of a real API server: a revision's pods, a kubelet that only writes status, a proxy on real sockets for each pod."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from msgspec.structs import replace

from e2e.api.client import MERGE, Client, Object, RefusedError
from knative_sponge.core.quantity import parse_quantity
from tests.controller.admission_kit import container
from tests.controller.sized_pod import owners_of, running, viewed
from tests.local.fake_proxy import Event, FakeProxy

NAMESPACE: Final = "default"
NODE: Final = "n1"
REVISION: Final = "hello-00002"
USER: Final = "user-container"
_PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
_LOOK_S: Final = 0.05
_SPEAK_S: Final = 1.0
_LEFT_BEHIND: Final = (
    f"{_PODS}?gracePeriodSeconds=0",
    f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events",
    f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/revisions",
    f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    f"/apis/apps/v1/namespaces/{NAMESPACE}/replicasets",
    f"/api/v1/namespaces/{NAMESPACE}/limitranges",
    "/api/v1/nodes",
    "/apis/coordination.k8s.io/v1/namespaces/knative-sponge/leases",
)


class Proxy(FakeProxy):
    """A proxy that plans with what it was last told, as ours does."""

    def __init__(self, cores: float) -> None:
        self.told: list[Event] = []
        super().__init__("t-1", self._hear, cores=cores)

    def _hear(self, event: Event) -> None:
        self.told.append(event)
        if event[0] in ("patched", "actuated"):
            self.demand = replace(self.demand, cores=event[1])

    def speak(self) -> None:
        """The line that comes every second."""
        self.want(self.demand.want)


class Node:
    """Use `a_node`. Everything that another part of a cluster would write is written as the administrator."""

    def __init__(self, admin: Client, owner: Object) -> None:
        """owner: the ReplicaSet of the pods, as a pod names it."""
        self.admin = admin
        self._owner = owner
        self.port = 0
        """Of the proxies' admin server."""
        self.proxies: dict[str, Proxy] = {}
        self.asked: dict[str, set[float]] = {}
        """All sizes that each pod's proxy ever wanted, its first one included."""
        self._pods: dict[str, Object] = {}

    async def add(self, name: str, cores: float, pod: Object | None = None) -> None:
        """A pod that runs, whose proxy wants what it has. pod: another one than `pod_of` makes."""
        ip = f"127.0.1.{len(self.proxies) + 1}"
        proxy = self.proxies[name] = Proxy(cores)
        await proxy.start(self.port, ip)
        self.port = proxy.port
        self.asked[name] = {cores}
        await self.put(pod or pod_of(cores), name, ip)

    async def put(self, pod: Object, name: str, ip: str) -> Object:
        """A pod without a proxy, as it is stored once it runs."""
        pod["metadata"] = {key: pod["metadata"][key] for key in ("namespace", "labels", "annotations")} | {"name": name}
        pod["metadata"]["ownerReferences"] = [self._owner]
        status = pod.pop("status") | {"podIP": ip, "podIPs": [{"ip": ip}]}
        status.pop("qosClass")  # the server knows it
        stored = await self.admin("POST", _PODS, pod)
        status["observedGeneration"] = stored["metadata"]["generation"]
        for one in status["containerStatuses"]:
            _apply(one, container(pod, one["name"])["resources"])
        return await self.admin("PATCH", f"{_PODS}/{name}/status", {"status": status}, MERGE)

    async def remove(self, name: str) -> None:
        """The pod is deleted, and its proxy ends."""
        await self.admin("DELETE", f"{_PODS}/{name}?gracePeriodSeconds=0")
        await self.proxies[name].close()

    def want(self, name: str, cores: float) -> None:
        """The pod's proxy wants so many cores; with fewer it would miss."""
        self.asked[name].add(cores)
        self.proxies[name].want(cores, curve=((0.1, 10.0), (cores, 0.0)))

    def in_force(self, name: str) -> float:
        """What its status shows; 0 before the kubelet looked."""
        pod = self._pods.get(name)
        return 0.0 if pod is None else viewed(pod).in_force or 0.0

    async def events(self) -> list[Object]:
        """The events of the namespace."""
        found = await self.admin("GET", f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")
        return list(found["items"])

    async def kubelet(self, stop: asyncio.Event) -> None:
        """Bring status to spec until told to stop; an API server that is away is waited for.

        It is not cancelled: a TLS connection whose request is given up closes later than the test's event loop does.
        """
        spoke_s = 0.0
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            await asyncio.sleep(_LOOK_S)
            if loop.time() - spoke_s >= _SPEAK_S:
                spoke_s = loop.time()
                for proxy in self.proxies.values():
                    proxy.speak()
            try:
                await self._look()
            except (aiohttp.ClientError, TimeoutError, RefusedError):
                continue

    async def _look(self) -> None:
        pods = (await self.admin("GET", _PODS))["items"]
        self._pods = {pod["metadata"]["name"]: pod for pod in pods}
        for name, pod in self._pods.items():
            if pod["status"]["phase"] == "Running" and (status := _applied(pod)) is not None:
                await self.admin("PATCH", f"{_PODS}/{name}/status", {"status": status}, MERGE)


def _applied(pod: Object) -> Object | None:
    """The parts of a status that shows the spec in force; None where it does."""
    statuses = copy.deepcopy(pod["status"]["containerStatuses"])
    for one in statuses:
        _apply(one, container(pod, one["name"])["resources"])
    generation = pod["metadata"]["generation"]
    if statuses == pod["status"]["containerStatuses"] and pod["status"]["observedGeneration"] == generation:
        return None
    return {"containerStatuses": statuses, "observedGeneration": generation}


def _apply(status: Any, resources: Object) -> None:
    status["resources"] = json.loads(json.dumps(resources))
    status["allocatedResources"] = dict(resources["requests"])


def pod_of(cores: float, **annotations: Any) -> Object:
    """A pod as our webhook leaves it; request and limit of its user container are `cores`.

    annotations: `cpu_limit="burst"` and the like.
    """
    cpu = f"{round(cores * 1000)}m"
    pod: Object = running(cpu=cpu, **annotations)
    for amounts in container(pod, USER)["resources"].values():
        amounts["cpu"] = cpu
    return pod


def size_of(patch: Any) -> float:
    """The cores that the body of a patch of `pods/resize` asks for."""
    return round(parse_quantity(container(patch, USER)["resources"]["requests"]["cpu"]), 3)


async def _replica_set(admin: Client) -> Object:
    """The Revision and what Knative and Kubernetes make for it, down to the ReplicaSet; as a pod names that. Nothing follows
    from them, as no controller of Kubernetes' own runs here."""
    owners = owners_of(pod_of(0.5))
    named: list[Object] = []
    for plural in ("revisions", "deployments", "replicasets"):
        one = owners[plural]
        labels, annotations = one["metadata"]["labels"], one["metadata"].get("annotations") or {}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": USER, "image": "dev.local/hello:dev"}]},
        }
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        body = {
            "apiVersion": one["apiVersion"],
            "kind": one["kind"],
            "metadata": {
                "name": one["metadata"]["name"],
                "namespace": NAMESPACE,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": named[-1:],
            },
            "spec": template["spec"] if plural == "revisions" else spec,
        }
        stored = await admin("POST", f"/apis/{one['apiVersion']}/namespaces/{NAMESPACE}/{plural}", body)
        metadata = stored["metadata"]
        named.append(
            {
                "apiVersion": one["apiVersion"],
                "kind": one["kind"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
            }
        )
    return named[-1]


@asynccontextmanager
async def a_node(admin: Client, cores: float) -> AsyncIterator[Node]:
    """A node that can give so many cores, its kubelet at work, and nothing of what an earlier one left."""
    for path in _LEFT_BEHIND:
        await admin("DELETE", path)
    allocatable = {"cpu": str(cores), "memory": "8Gi", "pods": "110"}
    status = {"allocatable": allocatable, "capacity": allocatable}
    await admin(
        "POST", "/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}, "status": status}
    )
    node = Node(admin, await _replica_set(admin))
    stop = asyncio.Event()
    kubelet = asyncio.create_task(node.kubelet(stop))
    try:
        yield node
    finally:
        stop.set()
        await kubelet
        for proxy in node.proxies.values():
            await proxy.close()
