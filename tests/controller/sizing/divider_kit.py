"""A divider with one node and two pods, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from knative_sponge.controller.cluster.capacity import managed
from knative_sponge.controller.cluster.node import NodeView
from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.kube.informer import Changed
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.divider import Divider
from knative_sponge.controller.sizing.pod_resizer import Patched, PodResizer
from knative_sponge.controller.sizing.quota_refusals import QuotaRefusals
from knative_sponge.core.allocation.divide import Claim, DivideRules, Division
from knative_sponge.wire.demand import DemandLine
from tests.controller.sized_pod import running, sized, viewed
from tests.controller.sizing.test_outage import FakeEffects, Store
from tests.virtual_time import run_virtual

NODE = "n1"


class Place:
    """Stands in for `ClusterCapacity`: one node."""

    def __init__(self) -> None:
        self.view = NodeView(NODE, 8.0, 8e9)
        self.pods: dict[Key, PodView] = {}
        self.taken = 0.0
        self.waits = 0.0
        self.looks = 0
        """How many times the node's pods were asked for."""
        self.tell: Callable[[Changed[PodView]], None] = lambda _changed: None

    def subscribe(self, subscriber: Callable[[Changed[PodView]], None]) -> None:
        self.tell = subscriber

    @property
    def nodes(self) -> Iterator[str]:
        return iter((NODE,))

    def node(self, _name: str) -> NodeView:
        return self.view

    def managed_on(self, _name: str) -> tuple[PodView, ...]:
        self.looks += 1
        return tuple(pod for _, pod in sorted(self.pods.items()) if managed(pod))

    def reserved(self, _name: str) -> float:
        return self.taken

    def waiting(self) -> Mapping[str, float]:
        return {NODE: self.waits} if self.waits else {}


class Streams:
    """Stands in for `DemandStreams`: says what the test says."""

    def follow(self, pods: Mapping[Key, object]) -> None:
        pass

    def close(self) -> None:
        pass


class Optimizer:
    """Finds nothing better, once it may answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def refine(
        self, _claims: Sequence[Claim], _capacity: float, _rules: DivideRules, greedy: Division
    ) -> Division:
        self.asked += 1
        await self.answers.wait()
        return greedy


class Stage(FakeEffects):
    """Pods a and b of half a core each, whose sizes come into force as soon as they are patched."""

    def __init__(self) -> None:
        self.store = Store()
        super().__init__(self.store)
        self.place = Place()
        self.lines: dict[str, DemandLine] = {}
        self.keys: dict[str, Key] = {name: ("default", name) for name in self.store.pods}
        self.proven: dict[str, float] = {}
        """Cores that are proven of a pod, by its name."""
        self.rates = count(1)
        self.answers = asyncio.Event()
        """Do proxies answer when they are told?"""
        self.answers.set()

        def streams(heard: Any) -> Any:
            self.heard = heard
            return Streams()

        clock = asyncio.get_running_loop().time
        cluster: Any = self.place
        self.optimizer = Optimizer()
        self.metrics = Metrics()
        self.divider = Divider(
            cluster,
            lambda pod: PodResizer(pod, self, clock),
            streams,
            self.optimizer,
            self.metrics,
            QuotaRefusals(),
            clock=clock,
        )
        for name in self.store.pods:
            self.put(self.store.pods[name])
            self.say(name, 0.5)

    def resizer(self, name: str) -> PodResizer:
        return self.divider.pods[self.keys[name]].resizer

    def put(self, pod: Object) -> None:
        seen = viewed(pod, self.proven.get(pod["metadata"]["name"], 0.0))
        before, self.place.pods[seen.key] = self.place.pods.get(seen.key), seen
        self.place.tell(Changed(seen.key, before, seen))
        self.divider.touch(NODE)

    def change(self, name: str, cores: float | None = None, **annotations: str) -> None:
        """Somebody changes the pod."""
        pod: Any = self.store.pods[name]
        if cores is not None:
            sized(pod, cores)
        for key, value in annotations.items():
            pod["metadata"]["annotations"][f"knative-sponge.dev/{key.replace('_', '-')}"] = value
        self.put(pod)

    def add(self, name: str, cores: float = 0.5, *, namespace: str = "default", **annotations: str) -> None:
        pod = self.store.pods[name] = running(cpu=f"{round(cores * 1000)}m", **annotations)  # type: ignore[arg-type]
        pod["metadata"] |= {"name": name, "uid": f"u-{name}", "namespace": namespace}
        self.keys[name] = (namespace, name)
        self.change(name, cores)

    def remove(self, name: str) -> None:
        key = self.keys[name]
        self.place.tell(Changed(key, self.place.pods.pop(key), None))
        del self.lines[name]

    def say(self, name: str, want: float, curve: tuple[tuple[float, float], ...] = ()) -> None:
        """The pod says what it wants; what else it says is new each time."""
        rate = float(next(self.rates))
        cores, curve = self.place.pods[self.keys[name]].size, curve or ((0.1, rate), (0.9 * want, 0.0))
        self.tell_line(name, DemandLine(cores=cores, want=want, rate=rate, curve=curve))

    def tell_line(self, name: str, line: DemandLine) -> None:
        """The pod's proxy says this."""
        self.lines[name] = line
        self.heard(self.keys[name], line)

    def say_again(self) -> None:
        for name, line in self.lines.items():
            self.say(name, line.want)

    async def tell(self, pod: PodView, phase: str, cores: float, reach: float) -> bool:
        await self.answers.wait()
        return await super().tell(pod, phase, cores, reach)

    def patched(self, resizer: PodResizer, event: Patched) -> None:
        sized(event.answer, event.cores)
        self.put(event.answer)

    @property
    def row(self) -> NodeRow | None:
        """The node's last division."""
        return self.divider.rows().get(NODE)

    async def divided(self) -> bool:
        """Is the node divided when it is looked at now?"""
        row = self.row
        await self.divider._divide_all({NODE})
        return self.row is not row

    async def settle(self, looks: int = 60) -> None:
        """Until nothing changes any more: no resize under way, and no need that is about to be forgotten."""
        for _ in range(looks):
            self.say_again()
            await self.divided()
            await asyncio.sleep(1.0)
        self.say_again()
        assert not await self.divided()


def staged(body: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        stage = Stage()
        try:
            await body(stage)
        finally:
            stage.divider.close()

    run_virtual(whole)
