"""The autoscaler class at work against an API server over HTTP, and a revision for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from knative_sponge.controller.cluster.watches import Nodes, Watches
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import (
    DEPLOYMENTS,
    POD_AUTOSCALERS,
    REVISIONS,
    SERVERLESS_SERVICES,
    Object,
)
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.revisions.reconciler import Reconciler
from tests.controller.apiserver import FakeApi
from tests.controller.revision_kit import (
    DEPLOYMENT,
    NAME,
    NAMESPACE,
    autoscaler,
    deployment,
    revision,
    service_status,
    until,
)
from tests.controller.revisions.fake_cold_requests import FakeColdRequests


@dataclass(frozen=True, slots=True)
class World:
    """The server, and the class running against it."""

    api: FakeApi
    metrics: Metrics
    cold_requests: FakeColdRequests

    def status(self) -> Object:
        found = self.api.get(POD_AUTOSCALERS, NAME, NAMESPACE)
        return {"conditions": []} if found is None else found.get("status") or {"conditions": []}

    def is_(self, name: str, status: str) -> bool:
        return any(entry["type"] == name and entry["status"] == status for entry in self.status()["conditions"])

    def replicas(self) -> int:
        found = self.api.get(DEPLOYMENTS, DEPLOYMENT, NAMESPACE)
        assert found is not None
        return int(found["spec"]["replicas"])

    def service(self) -> Object | None:
        return self.api.get(SERVERLESS_SERVICES, NAME, NAMESPACE)

    def knative_reports(self, *, ready: bool, activator: bool = False) -> None:
        """Knative's controller acted on the ServerlessService."""
        service = self.service()
        assert service is not None
        generation = service["metadata"]["generation"]
        self.api.change(
            SERVERLESS_SERVICES,
            NAME,
            NAMESPACE,
            status=service_status(generation=generation, ready=ready, activator=activator),
        )

    def outcomes(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("sponge_reconciles_total", {"outcome": outcome}) or 0.0


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with FakeApi() as api:
        kube = Kube.at(api.url)
        rng = random.Random(1)
        watches = Watches(kube, "knative-serving", rng, Nodes(kube, rng))
        metrics = Metrics()
        cold_requests = FakeColdRequests()
        reconciler = Reconciler(
            kube, watches, metrics, rng, cold_requests=cold_requests, idle=lambda _key: cold_requests.idle_s
        )
        tasks = [asyncio.create_task(part.run()) for part in (watches.nodes, watches, reconciler)]
        try:
            yield World(api, metrics, cold_requests)
        finally:
            for task in tasks:
                assert not task.done()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await kube.close()


def make(api: FakeApi, **scales: str) -> None:
    api.put(DEPLOYMENTS, deployment())
    api.put(REVISIONS, revision(routing="pending"))
    api.put(POD_AUTOSCALERS, autoscaler(**scales))


async def serving(known: World) -> None:
    make(known.api)
    await until(lambda: known.service() is not None)
    known.api.change(DEPLOYMENTS, DEPLOYMENT, NAMESPACE, status={"readyReplicas": 1})
    known.knative_reports(ready=True)
    known.api.change(REVISIONS, NAME, NAMESPACE, metadata={"labels": {"serving.knative.dev/routingState": "active"}})
    await until(lambda: known.is_("Ready", "True"))
