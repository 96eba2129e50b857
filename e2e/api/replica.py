"""One replica of the controller, as its service account, on a bad way to the API server; and what it may do, by resource.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from kubernetes.aio.client import ApiClient, Configuration

from e2e.api.client import Client
from e2e.api.faulty import Call, Faulty
from e2e.api.node import Node, size_of
from e2e.api.server import Server
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import ALL, Resource, Scope, Verb
from knative_sponge.controller.process import Process
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.settings import ControllerSettings
from tests.controller.admission.pod_kit import IMAGE

NAMESPACE: Final = "knative-sponge"
ACCOUNT: Final = "autoscaler"
SYSTEM: Final = "knative-serving"
_RESIZE: Final = "/resize"
_WRITES: Final = {"POST": Verb.CREATE, "PUT": Verb.UPDATE, "PATCH": Verb.PATCH}


def _kube(url: str, token: str) -> Kube:
    configuration = Configuration(host=url)
    configuration.api_key["BearerToken"] = f"Bearer {token}"
    return Kube(ApiClient(configuration))


@asynccontextmanager
async def our_client(server: Server, admin: Client) -> AsyncIterator[Kube]:
    """The product's client alone, as its service account."""
    async with Faulty(server.url, server.trust(admin=False)) as way:
        kube = _kube(way.url, await admin.token(NAMESPACE, ACCOUNT))
        try:
            yield kube
        finally:
            await kube.close()


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that runs, and its way."""

    process: Process
    way: Faulty

    @property
    def leads(self) -> bool:
        """Does it lead?"""
        return self.process.leads

    def sizes(self, pod: str) -> list[float]:
        """All sizes that it asked for, in order."""
        return [size_of(call.body) for call in self._resizes(pod)]

    def shortest_wait_s(self, pod: str) -> float:
        """Between two patches of the pod's size; inf without two."""
        times = [call.at_s for call in self._resizes(pod)]
        return min((after - before for before, after in pairwise(times)), default=float("inf"))

    def _resizes(self, pod: str) -> list[Call]:
        return self.way.writes(f"/{pod}{_RESIZE}")


@asynccontextmanager
async def replica(server: Server, node: Node, name: str = "autoscaler-0") -> AsyncIterator[Replica]:
    """While the block runs, a replica that started and will end in order. Call it once the node has its pods.

    When it ends, nothing was asked for that resource.py does not list.
    """
    token = await node.admin.token(NAMESPACE, ACCOUNT)
    settings = ControllerSettings(
        pod=name, namespace=NAMESPACE, proxy_image=IMAGE, webhook_port=0, health_port=0, metrics_port=0
    )
    async with Faulty(server.url, server.trust(admin=False)) as way:
        process = Process(
            settings,
            _kube(way.url, token),
            random.Random(1),
            host="127.0.0.1",
            leaving_s=0.0,
            admin_port=node.port,
            growth=GrowthRules(
                factor=1.0, most=0.0, extrapolation=0.0, least=0.0, margin=1.0
            ),  # no size but what somebody wanted
        )
        stop = asyncio.Event()
        task = asyncio.create_task(process.run(stop))
        try:
            await process.started.wait()
            yield Replica(process, way)
        finally:
            stop.set()
            await task
        assert [f"{call.method} {call.path}" for call in way.calls if not is_listed(call)] == []


def is_listed(call: Call) -> bool:
    """Is the call one of those that resource.py lists?"""
    return any(_is_of(resource, call, *place) for resource in ALL for place in _places(call, resource))


def _is_of(resource: Resource, call: Call, namespace: str | None, name: str | None) -> bool:
    if call.method == "GET":
        verb: Verb | None = Verb.WATCH if call.watches else Verb.LIST if name is None else Verb.GET
    else:
        verb = _WRITES.get(call.method)
    within = {Scope.CLUSTER: namespace, Scope.OWN: NAMESPACE, Scope.SYSTEM: SYSTEM}[resource.scope]
    named = name or call.query.get("fieldSelector", "").removeprefix("metadata.name=")
    free = not resource.names or verb is Verb.CREATE
    return verb in resource.verbs and namespace == within and (free or named in resource.names)


def _places(call: Call, resource: Resource) -> Iterator[tuple[str | None, str | None]]:
    """(namespace, name) for which the call's path is one of the resource's; a name that is None is its collection."""
    parts = call.path.split("/")
    namespaces = [None, *(after for before, after in pairwise(parts) if before == "namespaces")]
    for namespace in namespaces:
        for name in (None, parts[-1], parts[-2]):
            if resource.path(namespace, name) == call.path and (name is not None or not resource.subresource):
                yield namespace, name
