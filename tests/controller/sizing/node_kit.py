"""A node with pods: an API server over HTTP, a kubelet that applies sizes late, and a proxy on real sockets for each pod."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from knative_sponge.controller.cluster.namespace_limits import NamespaceLimits
from knative_sponge.controller.cluster.ownership import Ownership
from knative_sponge.controller.cluster.watches import Nodes, Watches, limits_config
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.events import Recorder
from knative_sponge.controller.kube.resource import DEPLOYMENTS, NODES, PODS, REPLICA_SETS, REVISIONS, Object
from knative_sponge.controller.profiles.store import ProfileKeeper, ProfileStore
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.sizing.sizer import Sizer
from knative_sponge.core.quantity import parse_quantity
from tests.controller.admission.pod_kit import IMAGE
from tests.controller.admission_kit import container
from tests.controller.apiserver import FakeApi
from tests.controller.revision_kit import run, until
from tests.controller.sized_pod import owners_of, running
from tests.local.fake_proxy import Event, FakeProxy

NAMESPACE = "default"
_LAG_S = 0.03


class Node:
    """One node and everything on it."""

    def __init__(self, api: FakeApi, kube: Kube) -> None:
        self.api = api
        self.kube = kube
        self.proxies: dict[str, FakeProxy] = {}
        self.told: dict[str, list[Event]] = {}
        """What each pod's proxy was told: ("patched", 1.5) and the like; ("demand", n) for each listener."""
        self.metrics = Metrics()
        self.board = Board()
        rng = random.Random(1)
        self.limits = limits_config(kube, "knative-sponge", rng)
        self.watches = Watches(kube, "knative-serving", rng, Nodes(kube, rng), self.limits)
        self.port = 0
        self.applies = True
        """Does the kubelet work?"""
        self.sizer: Sizer

    def cores(self, name: str) -> float:
        """What the pod's spec asks for."""
        pod = self.api.get(PODS, name, NAMESPACE)
        assert pod is not None
        return round(parse_quantity(container(pod, "user-container")["resources"]["requests"]["cpu"]), 3)

    def in_force(self, name: str) -> float:
        """What its status shows."""
        pod = self.api.get(PODS, name, NAMESPACE)
        (status,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == "user-container")  # type: ignore[index]
        return round(parse_quantity(status["resources"]["requests"]["cpu"]), 3)

    def wanted(self, name: str) -> float | None:
        """What the pod's proxy wants, as the divider has heard it; None before that."""
        pod = self.sizer.divider.pods.get((NAMESPACE, name))
        return None if pod is None or pod.demand is None else pod.demand.line.want

    @property
    def patches(self) -> list[str]:
        """Names of the pods whose size was patched, in order."""
        return [path.split("/")[-2] for method, path in self.api.writes(to="/resize") if method == "PATCH"]

    @property
    def allocated(self) -> float:
        """Cores that all specs together ask for."""
        containers = [one for pod in self.api.all(PODS) for one in pod["spec"]["containers"]]
        return round(sum(parse_quantity(one["resources"].get("requests", {}).get("cpu", "0")) for one in containers), 3)

    async def add(
        self,
        name: str,
        cores: float,
        *,
        ip: str,
        revision: str = "hello-00002",
        namespace: str = NAMESPACE,
        **annotations: str,
    ) -> FakeProxy:
        """A pod that runs, whose proxy wants what it has. Pods with other annotations are of another revision."""
        told = self.told[name] = []
        proxy = self.proxies[name] = FakeProxy("t-1", told.append, cores=cores)
        await proxy.start(self.port, ip)
        self.port = proxy.port
        text = f"{round(cores * 1000)}m"
        pod = running(cpu=text, **annotations)  # type: ignore[arg-type]
        for amounts in container(pod, "user-container")["resources"].values():
            amounts["cpu"] = text
        pod["metadata"] |= {"name": name, "uid": f"u-{name}", "namespace": namespace}
        pod["status"]["podIP"] = ip
        labels = pod["metadata"]["labels"]
        labels["serving.knative.dev/revision"] = revision
        stored = self.api.get(REVISIONS, revision, namespace)
        if (
            stored is not None
            and stored["metadata"]["annotations"] != owners_of(pod)["revisions"]["metadata"]["annotations"]
        ):
            labels["serving.knative.dev/revision"] = f"{name}-00001"
        owners = owners_of(pod)
        for resource in (REVISIONS, DEPLOYMENTS, REPLICA_SETS):
            owner = owners[resource.plural]
            if self.api.get(resource, owner["metadata"]["name"], namespace) is None:
                self.api.put(resource, owner)
        self.api.put(PODS, pod)
        return proxy

    def put_node(self, cores: float, name: str = "n1") -> None:
        """The node, which can give so many cores."""
        self.api.put(
            NODES, {"metadata": {"name": name}, "status": {"allocatable": {"cpu": str(cores), "memory": "8Gi"}}}
        )

    async def kubelet(self) -> None:
        """Bring status to spec, a little later; grows only into what is free, as kubelets do."""
        while True:
            await asyncio.sleep(_LAG_S)
            for pod in self.api.all(PODS) if self.applies else ():
                if (new := _applied(pod)) is not None:
                    self.api.put(PODS, new)

    async def beats(self) -> None:
        """What the proxies say when nothing changes."""
        while True:
            await asyncio.sleep(0.5)
            for proxy in self.proxies.values():
                proxy.repeat()


def _applied(pod: Any) -> Object | None:
    changed = False
    for status in pod["status"].get("containerStatuses", ()):
        wanted = container(pod, status["name"])["resources"]
        if any(status["resources"].get(kind) != amounts for kind, amounts in wanted.items()):
            status["resources"] = wanted
            status["allocatedResources"] = wanted["requests"]
            changed = True
    pod["status"]["observedGeneration"] = pod["metadata"]["generation"]
    return pod if changed else None


@asynccontextmanager
async def a_node(cores: float) -> AsyncIterator[Node]:
    """Everything but the sizer, which `sizing` starts once there are pods."""
    async with FakeApi() as api, AsyncExitStack() as stack:
        kube = Kube.at(api.url)
        stack.push_async_callback(kube.close)
        node = Node(api, kube)
        node.put_node(cores)
        try:
            yield node
        finally:
            for proxy in node.proxies.values():
                await proxy.close()


@asynccontextmanager
async def sizing(node: Node) -> AsyncIterator[Sizer]:
    """While the block runs, the sizer and a kubelet work on the node."""
    store = ProfileStore(node.kube, "knative-sponge")
    node.sizer = Sizer(
        node.kube,
        node.watches,
        Ownership(
            node.watches.revisions,
            node.watches.deployments,
            node.watches.replica_sets,
            NamespaceLimits(node.limits),
            images=[IMAGE],
        ),
        Recorder(node.kube, "autoscaler-0"),
        node.metrics,
        node.board,
        ProfileKeeper(node.kube, store, "knative-sponge"),
        random.Random(1),
        port=node.port,
    )
    watches = node.watches
    parts = (watches.nodes.run(), node.limits.run(), watches.run(), node.sizer.run(), node.kubelet(), node.beats())
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        yield node.sizer
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [result for result in results if isinstance(result, Exception)]
        if failed:
            raise failed[0]


def on_a_node(
    cores: float, pods: dict[str, float], body: Callable[[Node], Awaitable[None]], **annotations: str
) -> None:
    """Run `body` on a node of so many cores with pods of such sizes, the sizer at work and each proxy heard."""

    async def whole() -> None:
        async with a_node(cores) as node:
            for number, (name, size) in enumerate(pods.items(), 1):
                await node.add(name, size, ip=f"127.0.0.{number}", **annotations)
            async with sizing(node):
                await until(lambda: all(proxy.listeners for proxy in node.proxies.values()))
                await body(node)

    run(whole())
