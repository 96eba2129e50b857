"""Pods with resizers on them, a kubelet that measures and applies, and the memory sizer around them; in virtual time."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Mapping
from typing import Any, cast

from knative_sponge.controller.cluster.capacity import ClusterCapacity, managed
from knative_sponge.controller.cluster.node import kept_of_node
from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.cluster.pod_request import kept_of_pod
from knative_sponge.controller.kube.client import Kube, Patch
from knative_sponge.controller.kube.informer import Changed, Informer, key_of
from knative_sponge.controller.kube.resource import NODES, POD_RESIZE, PODS, Key, Object, Resource
from knative_sponge.controller.sizing.memory import MemorySizer
from knative_sponge.controller.sizing.memory_usage import Place
from knative_sponge.controller.sizing.pod_resizer import Patched, PhaseChanged, PodResizer, Refused
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.resizing.events import Report
from knative_sponge.errors import KubeError
from tests.controller.admission_kit import container
from tests.controller.sized_pod import Copied, resized, running

MI = 2**20
ADDRESS = "198.51.100.7"
LAG_S = 1.0
"""Until a kubelet has applied a resize and status shows it."""


class _Fed(Informer):
    """What the test says was seen."""

    version = 100

    def feed(self, item: Object) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self._put(key_of(item), self._keep(copy.deepcopy(item)))


class World:
    """One node, `memory` of it allocatable. Must be made inside a running loop. Satisfies `pod_resizer.ResizeEffects`."""

    def __init__(self, memory: str = "8Gi") -> None:
        loop = asyncio.get_running_loop()
        self.kube = cast("Kube", self)
        self.pods: dict[Key, PodState] = {}
        self.used: dict[str, float] = {}
        """MiB in use by each pod's serving container, where that is known."""
        self.asked: list[str] = []
        self.broken = False
        """Does the kubelet not answer?"""
        self.refusals: list[KubeError] = []
        """Of the patches that come next."""
        self.patches: list[tuple[str, Any]] = []
        """Pod and resources of each patch."""
        self.applies = True
        """Does the kubelet do what spec says?"""
        self.reports: list[Report] = []
        self._objects: dict[str, Any] = {}
        self._loop = loop
        rng = random.Random(1)
        self._pods = _Fed(self.kube, PODS, rng=rng, keep=kept_of_pod)
        self._nodes = _Fed(self.kube, NODES, rng=rng, keep=kept_of_node)
        self.cluster = ClusterCapacity(self._pods, self._nodes, Copied(), lambda _node: None)
        self.cluster.subscribe(self._seen)
        self.sizer = MemorySizer(self.cluster, self.pods, self, self.report, clock=loop.time)
        self.put_node(memory)

    def put_node(self, memory: str = "8Gi", address: str = ADDRESS) -> None:
        addresses = [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": address}]
        status = {"allocatable": {"cpu": "8", "memory": memory}, "addresses": addresses if address else []}
        self._nodes.feed({"metadata": {"name": "n1"}, "status": status})

    def add(self, name: str, *, limit: str | None = "128Mi", **annotations: str) -> None:
        """A pod with this limit and request of memory; without a limit its request is 64Mi. With `policy="RestartContainer"`
        it restarts when that is resized."""
        policy = annotations.pop("policy", "NotRequired")
        pod = running(generation=3, **annotations)
        pod["metadata"] |= {"name": name, "uid": f"u-{name}"}
        serving = container(pod, "user-container")
        if limit is None:
            del serving["resources"]["limits"]["memory"]
        else:
            for amounts in serving["resources"].values():
                amounts["memory"] = limit
        serving["resizePolicy"] = [{"resourceName": "memory", "restartPolicy": policy}]
        self._objects[name] = pod
        self._apply(name)

    def add_other(self, name: str, memory: str, phase: str = "Running") -> None:
        """A pod that is none of ours."""
        spec = {"nodeName": "n1", "containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]}
        self._pods.feed({"metadata": {"name": name, "namespace": "x"}, "spec": spec, "status": {"phase": phase}})

    def remove(self, name: str) -> None:
        self._pods._put(key_of(self._objects.pop(name)), None)

    def memory(self, name: str) -> tuple[str | None, str | None]:
        """Request and limit in spec."""
        resources = container(self._objects[name], "user-container")["resources"]
        return resources["requests"].get("memory"), resources["limits"].get("memory")

    def resizer(self, name: str) -> PodResizer:
        return self.pods["default", name].resizer

    def condition(self, name: str, kind: str | None, reason: str = "") -> None:
        """The kubelet has looked at spec, and this holds; None for no condition."""
        status = self._objects[name]["status"]
        status["conditions"] = [one for one in status["conditions"] if not one["type"].startswith("PodResize")]
        if kind is not None:
            status["conditions"].append({"type": kind, "status": "True", "reason": reason, "message": "it says why"})
        status["observedGeneration"] = self._objects[name]["metadata"]["generation"]
        self._pods.feed(self._objects[name])

    async def pass_time(self, seconds: float, every_s: float = 5.0) -> None:
        """Look so often, as `MemorySizer.run` does."""
        end_s = self._loop.time() + seconds
        while self._loop.time() < end_s:
            await self.sizer.look()
            await asyncio.sleep(every_s)

    # The kubelet

    async def working_sets(self, address: str) -> Mapping[Place, int]:
        self.asked.append(address)
        await asyncio.sleep(0.01)
        if self.broken:
            raise KubeError("it is out of order", status=500)
        return {("default", name, "user-container"): int(size * MI) for name, size in self.used.items()}

    def _apply(self, name: str) -> None:
        pod = self._objects.get(name)
        if pod is None or not self.applies:
            return
        (status,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == "user-container")
        status["resources"] = copy.deepcopy(container(pod, "user-container")["resources"])
        status["allocatedResources"] = dict(status["resources"]["requests"])
        self.condition(name, None)

    # The API server

    async def patch(
        self, resource: Resource, name: str, body: Any, namespace: str, *, kind: Patch, read: object
    ) -> Object:
        assert (resource, namespace, kind) == (POD_RESIZE, "default", Patch.STRATEGIC)
        await asyncio.sleep(0.01)
        self.patches.append((name, body["spec"]["containers"][0]["resources"]))
        if self.refusals:
            raise self.refusals.pop(0)
        pod = resized(copy.deepcopy(self._objects[name]), body)
        pod["metadata"]["generation"] += 1
        self._objects[name] = pod
        self._loop.call_later(LAG_S, self._apply, name)
        answer: Object = copy.deepcopy(pod)
        return answer

    # What surrounds a resizer

    async def tell(self, _pod: PodView, _phase: str, _cores: float, _reach: float) -> bool:
        return True

    def patched(self, _resizer: PodResizer, event: Patched) -> None:
        self._pods.feed(event.answer)

    def report(self, _resizer: PodResizer, report: Report) -> None:
        self.reports.append(report)

    def refused(self, resizer: PodResizer, event: Refused) -> None:
        if event.memory is not None:
            self.sizer.refused(resizer, event.memory)

    def phase_changed(self, event: PhaseChanged) -> None:
        pass

    def _seen(self, changed: Changed[PodView]) -> None:
        after = changed.after
        if after is None or not managed(after):
            if (gone := self.pods.pop(changed.key, None)) is not None:
                gone.resizer.close()
            return
        if after.key not in self.pods:
            now = self._loop.time
            self.pods[after.key] = PodState(PodResizer(after, self, now), GrowthRules(), now())
        self.pods[after.key].resizer.see(after)
