"""An object that some step of the leader cannot handle hurts nothing but itself: for every loop of the leader one such object.

The step raises what no step is written for. Each loop has an object of its own, so that none hides another.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from knative_sponge.controller.admission import control_keys, rotation, stock_proxy_report
from knative_sponge.controller.cluster import capacity
from knative_sponge.controller.kube import informer
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import (
    AUTOSCALER_CONFIG,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LIMITS,
    NODES,
    POD_AUTOSCALERS,
    PODS,
    PROFILES,
    REPLICA_SETS,
    REVISIONS,
    SERVERLESS_SERVICES,
)
from knative_sponge.controller.process import Process
from knative_sponge.controller.profiles import collector, store
from knative_sponge.controller.revisions import activators, reconciler
from knative_sponge.controller.sizing import divider, hybrid_pod_counts, memory, overview, pod_resizer, sizer
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.state import CoresState, ProxyState
from tests.controller.admission_kit import container
from tests.controller.apiserver import FakeApi
from tests.controller.profile_kit import document
from tests.controller.revision_kit import NAME, NAMESPACE, autoscaler, deployment, revision, run, until
from tests.controller.sized_pod import owners_of, running, sized
from tests.controller.test_process import SPACE, configure, get, settings
from tests.local.fake_proxy import FakeProxy

WATCHED = {
    "podautoscalers": POD_AUTOSCALERS, "revisions": REVISIONS, "serverlessservices": SERVERLESS_SERVICES,
    "deployments": DEPLOYMENTS, "replicasets": REPLICA_SETS, "pods": PODS, "nodes": NODES, "configmaps": LIMITS,
    "endpointslices": ENDPOINT_SLICES,
}  # fmt: skip


UNPOISONED = {"follow endpointslices", "waiting requests"}
"""Nobody subscribes to the former; the latter needs an activator (`tests/controller/revisions/test_activators.py`)."""


class Poisoned(Exception):
    """What no step is written for."""


NAMED = {
    "read configmaps": "config-autoscaler",
    "follow configmaps": LIMITS.names[0],
    "certificates": "webhook-certs",
    "control keys": "control-keys",
    "control keys as read": "a-read",
}
"""Objects with names of their own."""


def slug(loop: str) -> str:
    return NAMED.get(loop) or f"evil-{loop.replace(' ', '-')}-x"


class Poison:
    """Makes steps raise for one object each. hit: the loops whose step has done so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.loops: set[str] = set()

    def put(self, loop: str, owner: Any, name: str, whom: Callable[..., object] | None = None) -> None:
        """The step `owner.name` raises for the object that `whom` finds in its arguments; default: in their text."""
        step, evil = getattr(owner, name), slug(loop)
        self.loops.add(loop)

        def poisoned(*args: Any, **more: Any) -> Any:
            found = repr(args) if whom is None else repr(whom(*args))
            if evil in found:
                raise Poisoned(evil)
            return step(*args, **more)

        self._patch.setattr(owner, name, poisoned)

    def always(self, loop: str, owner: Any, name: str, after: int) -> None:
        """The step raises from its call number `after` on: there is one object only."""
        step, calls = getattr(owner, name), iter(range(10**9))
        self.loops.add(loop)

        async def poisoned(*args: Any, **more: Any) -> Any:
            if next(calls) >= after:
                raise Poisoned(loop)
            return await step(*args, **more)

        self._patch.setattr(owner, name, poisoned)

    def informers(self) -> None:
        """What informers keep, and whom they tell."""
        begin, subscribe = informer.Informer.__init__, informer.Informer.subscribe
        self.loops |= {f"{verb} {plural}" for verb in ("read", "follow") for plural in WATCHED}

        def __init__(self: Any, kube: Any, resource: Any, **more: Any) -> None:  # noqa: N807
            begin(self, kube, resource, **more)
            keep = self._keep

            def kept(item: Any) -> Any:
                if item["metadata"]["name"] == slug(f"read {resource}"):
                    raise Poisoned
                return keep(item)

            self._keep = kept

        def subscribed(self: Any, subscriber: Any) -> None:
            def told(changed: Any) -> None:
                if changed.key[1] == slug(f"follow {self.resource}"):
                    raise Poisoned
                subscriber(changed)

            subscribe(self, told)

        self._patch.setattr(informer.Informer, "__init__", __init__)
        self._patch.setattr(informer.Informer, "subscribe", subscribed)


def poisoned(patch: pytest.MonkeyPatch) -> Poison:
    """Every loop's step with its poison, and rounds that do not make a test wait."""
    poison = Poison(patch)
    poison.informers()
    poison.put("pod views", capacity, "view", lambda pod, *_, **__: pod["metadata"]["name"])
    poison.put("resizers", divider.Divider, "_pod_changed", lambda _self, changed: changed.key)
    poison.loops -= {"resizers", "follow endpointslices"}  # it follows pods; nobody follows those
    poison.put("claims", divider, "claim", lambda pod, *_: pod.key)
    poison.put("nodes", divider.Divider, "_divide", lambda _self, name, *_: name)
    poison.put("resizes", pod_resizer, "resize_body", lambda pod, *_: pod.key)
    poison.put("demands", divider.Divider, "_heard", lambda _self, key, _line: key)
    poison.put("sizes", sizer.Sizer, "_report_silence", lambda _self, pod, _now: pod.resizer.pod.key)
    poison.put("pod counts", hybrid_pod_counts.PodCounts, "_decide", lambda _self, key, *_: key)
    poison.put("overview", overview.Overviews, "_row", lambda _self, key, *_: key)
    poison.put("metrics", overview.Overviews, "_measure_revision", lambda _self, key, *_: key)
    poison.put("memory", memory.MemorySizer, "_conclude", lambda _self, resizer: resizer.pod.key)
    poison.put("memory of nodes", memory.MemorySizer, "_look_at", lambda _self, name, *_: name)
    poison.put("stock proxies", stock_proxy_report, "_found", lambda pod: pod and pod["metadata"]["name"])
    poison.put("reports of stock proxies", stock_proxy_report.Reporter, "_report", lambda _self, key, _found: key)
    poison.always("webhook configurations", stock_proxy_report.Reporter, "_check_webhooks", 0)
    poison.always("certificates", rotation.Rotation, "check", 1)
    poison.always("control keys", control_keys.KeyRotation, "check", 1)
    poison.always("control keys as read", control_keys.ControlKeys, "read", 1)
    poison.always("activators", activators.Activators, "_poll", 0)
    poison.put("revisions", reconciler.Reconciler, "_reconcile", lambda _self, key: key)
    poison.put("models", collector, "_learned", lambda state: state.version)
    poison.put("profiles", store, "from_text")
    poison.put("learned profiles", store, "image_profile")
    patch.setattr(sizer, "_LEARN_S", 0.5)
    patch.setattr(sizer, "_PUBLISH_S", 0.1)
    patch.setattr(sizer, "PERIOD_S", 0.1)
    patch.setattr(memory, "_PERIOD_S", 0.2)
    patch.setattr(rotation, "CHECK_S", 0.2)
    patch.setattr(control_keys, "CHECK_S", 0.2)
    patch.setattr(store, "READ_S", 0.2)
    patch.setattr(store, "WRITE_S", 0.2)
    patch.setattr(activators, "SLOW_POLL_S", 0.1)
    return poison


class World:
    """An API server with a pod for each loop on one node, each with its proxy, and one pod that is sound."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.proxies: dict[str, FakeProxy] = {}
        self.names: dict[str, str] = {}
        """Of pods, by IP address."""
        self.port = 0

    async def add(self, name: str, where: str = "n1", *, stock: bool = False, **annotations: str) -> None:
        number = len(self.proxies) + 1
        proxy = self.proxies[name] = FakeProxy("t-1", lambda _event: None, cores=0.1)
        await proxy.start(self.port, f"127.0.2.{number}")
        self.port, self.names[f"127.0.2.{number}"] = proxy.port, name
        pod = running(**annotations)  # type: ignore[arg-type]
        pod["metadata"] |= {"name": name, "uid": f"u-{name}", "namespace": "evil" if "evil" in name else "good"}
        pod["metadata"]["labels"] |= {"serving.knative.dev/revision": name, "serving.knative.dev/service": name}
        if stock:
            del pod["metadata"]["annotations"]["knative-sponge.dev/proxy"]
        pod["spec"]["nodeName"], pod["status"]["podIP"] = where, f"127.0.2.{number}"
        sized(pod, 0.1)
        for resource in (REVISIONS, DEPLOYMENTS, REPLICA_SETS):
            self.api.put(resource, owners_of(pod)[resource.plural])
        self.api.put(PODS, pod)
        scaled = autoscaler(name)
        scaled["metadata"]["namespace"] = pod["metadata"]["namespace"]
        self.api.put(POD_AUTOSCALERS, scaled)

    def cores(self, name: str) -> str:
        found = self.api.get(PODS, name, "evil" if "evil" in name else "good")
        cpu: str = container(found or {}, "user-container")["resources"]["requests"]["cpu"]
        return cpu


def test_every_step_of_the_leader_survives_an_object_that_it_cannot_handle_and_serves_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison = poisoned(monkeypatch)

    async def body() -> None:
        async with FakeApi() as api:
            world = World(api)
            configure(api)
            model = document(30)

            async def state(client: Any) -> ProxyState:
                name = world.names[client._host]
                return ProxyState(version=name, cores=CoresState(now=0.1, want=0.1), model=model | {"of": name})

            monkeypatch.setattr(AdminClient, "state", state)
            for name in ("n1", slug("nodes"), slug("memory of nodes"), slug("read nodes"), slug("follow nodes")):
                api.put(NODES, {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "64", "memory": "64Gi"}}})
            for loop in sorted(poison.loops | {"resizers"}):
                where = slug(loop) if loop in ("nodes", "memory of nodes") else "n1"
                bounds = {"max_memory": "1Gi"} if loop in ("memory", "memory of nodes") else {}
                scaling = {"scaling": "hybrid"} if loop == "pod counts" else {}
                await world.add(slug(loop), where, stock=loop.endswith("stock proxies"), **bounds, **scaling)
            await world.add("good")
            for verb in ("read", "follow"):
                evil = slug(f"{verb} serverlessservices")
                api.put(SERVERLESS_SERVICES, {"metadata": {"name": evil, "namespace": "evil"}, "spec": {}})
                labels = {"kubernetes.io/service-name": "activator-service"}
                one = {"name": slug(f"{verb} endpointslices"), "namespace": "knative-serving", "labels": labels}
                api.put(ENDPOINT_SLICES, {"metadata": one, "endpoints": []})
                for resource in (REVISIONS, POD_AUTOSCALERS, DEPLOYMENTS, REPLICA_SETS):
                    evil = slug(f"{verb} {resource.plural}")
                    one = {"name": evil, "namespace": "evil", "labels": {"serving.knative.dev/revision": evil}}
                    api.put(resource, {"metadata": one, "spec": {}})
            api.put(LIMITS, {"metadata": {"name": LIMITS.names[0], "namespace": SPACE}, "data": {}})
            api.put(AUTOSCALER_CONFIG, {"metadata": {"name": "config-autoscaler", "namespace": "knative-serving"}})
            api.put(REVISIONS, revision())
            api.put(DEPLOYMENTS, deployment())
            api.put(POD_AUTOSCALERS, autoscaler())
            data = {slug("profiles"): slug("profiles")}
            api.put(PROFILES, {"metadata": {"name": "knative-sponge-profiles", "namespace": SPACE}, "data": data})
            process = Process(
                settings("autoscaler-0"),
                Kube.at(api.url),
                random.Random(1),
                host="127.0.0.1",
                leaving_s=0.0,
                admin_port=world.port,
            )
            stop = asyncio.Event()
            task = asyncio.create_task(process.run(stop))
            try:
                await process.started.wait()
                await until(lambda: process.leads and world.proxies["good"].listeners)
                failed: set[str] = set()
                while poison.loops - failed:
                    assert not task.done()
                    await asyncio.sleep(0.05)
                    for name, proxy in world.proxies.items():
                        if name != "good":
                            proxy.want(0.2)
                    api.change(NODES, slug("follow nodes"), "", status={"allocatable": {"cpu": "63"}})
                    await get(process.metrics.port, "/sponge/v1/revisions")
                    _, text = await get(process.metrics.port, "/metrics")
                    failed = {
                        loop for loop in poison.loops if f'sponge_controller_errors_total{{loop="{loop}"}}' in text
                    }
                assert process.failures.loops.keys() - poison.loops == UNPOISONED, "a new loop needs its poison here"
                world.proxies["good"].want(1.5)
                await until(lambda: parse_quantity(world.cores("good")) >= 1.5)
                await until(lambda: api.get(SERVERLESS_SERVICES, NAME, NAMESPACE) is not None)
                assert process.leads
            finally:
                stop.set()
                await task
                for proxy in world.proxies.values():
                    await proxy.close()

    with caplog.at_level(logging.ERROR):
        run(body())
