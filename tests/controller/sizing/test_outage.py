"""An hour without an API server, in virtual time: few tries, nothing missed afterwards, no size but the one that is wanted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from itertools import pairwise

from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.kube.api_json import Text, read_object
from knative_sponge.controller.kube.client import Kube, Listing, Patch, WatchEventType
from knative_sponge.controller.kube.informer import Informer
from knative_sponge.controller.kube.resource import PODS, Object, Resource
from knative_sponge.controller.sizing.pod_resizer import Patched, PhaseChanged, PodResizer, Refused
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.core.resizing.events import Report
from knative_sponge.errors import KubeGone, KubeUnreachable
from tests.controller.admission_kit import container
from tests.controller.sized_pod import resized, running, viewed
from tests.virtual_time import run_virtual

_HOUR_S = 3600.0
_LONGEST_WAIT_S = 30.0


def _now() -> float:
    return asyncio.get_running_loop().time()


class Store(Kube):
    """Pods a and b behind an API server that may be away, and that has forgotten its history when it is back."""

    def __init__(self) -> None:
        self.away = False
        self.forgot = False
        self.pods: dict[str, Object] = {name: running(cpu="500m") for name in ("a", "b")}
        for name, pod in self.pods.items():
            pod["metadata"]["name"] = name
            for amounts in container(pod, "user-container")["resources"].values():
                amounts["cpu"] = "500m"
        self.tries: dict[str, list[float]] = {"list": [], "watch": [], "patch": []}
        self.patched: list[float] = []

    def _try(self, what: str) -> None:
        self.tries[what].append(_now())
        if self.away:
            raise KubeUnreachable("connection refused")

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        keep: Callable[[Text], Object] = read_object,
    ) -> Listing:
        self._try("list")
        self.forgot = False
        return Listing(tuple(self.pods.values()), "80")

    async def watch(
        self,
        resource: Resource,
        version: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        read: Callable[[Text], Object] = read_object,
    ) -> AsyncGenerator[tuple[WatchEventType, Object]]:
        self._try("watch")
        if self.forgot:
            raise KubeGone("too old resource version")
        while not self.away:
            yield WatchEventType.BOOKMARK, {"metadata": {"resourceVersion": "81"}}
            await asyncio.sleep(1.0)
        self.forgot = True
        raise KubeUnreachable("connection reset")

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Object,
        namespace: str | None = None,
        *,
        kind: Patch = Patch.MERGE,
        read: Callable[[Text], Object] = read_object,
    ) -> Object:
        self._try("patch")
        self.patched.append(parse_quantity(container(body, "user-container")["resources"]["requests"]["cpu"]))
        pod = resized(self.pods[name], body)
        pod["metadata"]["generation"] += 1
        return pod  # type: ignore[no-any-return]


class FakeEffects:
    """What a resizer works with: an API server, and a proxy that hears everything. Satisfies `pod_resizer.ResizeEffects`."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.told: list[tuple[str, float]] = []

    async def tell(self, pod: PodView, phase: str, cores: float, reach: float) -> bool:
        self.told.append((phase, cores))
        return True

    def patched(self, resizer: PodResizer, event: Patched) -> None:
        resizer.see(viewed(event.answer))

    def report(self, resizer: PodResizer, report: Report) -> None:
        pass

    def refused(self, resizer: PodResizer, event: Refused) -> None:
        pass

    def phase_changed(self, event: PhaseChanged) -> None:
        pass


def test_a_pod_that_went_during_an_hour_without_api_server_is_forgotten_soon_after_it() -> None:
    async def body() -> None:
        store = Store()
        informer = Informer(store, PODS, rng=random.Random(1))
        following = asyncio.create_task(informer.run())
        await informer.synced.wait()
        await asyncio.sleep(10.0)
        before = len(store.tries["watch"])
        store.away = True
        del store.pods["a"]
        await asyncio.sleep(_HOUR_S)
        assert {name for _, name in informer.objects} == {"a", "b"}
        assert len(store.tries["watch"]) - before < 2 * _HOUR_S / _LONGEST_WAIT_S + 10
        store.away = False
        await asyncio.sleep(_LONGEST_WAIT_S)
        assert {name for _, name in informer.objects} == {"b"}
        assert len(store.tries["list"]) == 2
        following.cancel()

    run_virtual(body)


def test_after_an_hour_without_api_server_a_pod_gets_the_size_that_is_wanted_then() -> None:
    async def body() -> None:
        store = Store()
        effects = FakeEffects(store)
        resizer = PodResizer(viewed(store.pods["a"]), effects, _now)
        resizer.see(resizer.pod)
        await asyncio.sleep(10.0)
        store.away = True
        wanted = random.Random(1)
        for _ in range(int(_HOUR_S)):
            size = round(wanted.uniform(0.1, 4.0), 3)
            resizer.set_target(size, size, 4.0, "it changes", _now())
            await asyncio.sleep(1.0)
        assert len(store.tries["patch"]) < _HOUR_S / _LONGEST_WAIT_S + 10
        assert min(after - before for before, after in pairwise(store.tries["patch"])) >= 1.0 - 1e-6
        assert store.patched == []
        assert max(cores for _, cores in effects.told) <= 0.5  # a growth is told when it is there
        resizer.set_target(1.5, 1.5, 4.0, "it is back", _now())
        store.away = False
        await asyncio.sleep(_LONGEST_WAIT_S)
        assert store.patched == [1.5]
        resizer.close()

    run_virtual(body)
