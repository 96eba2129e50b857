"""The informers that the leader's parts share, so that each resource is watched once; they only read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from knative_sponge.controller.annotations import REVISION_LABEL
from knative_sponge.controller.informer import Informer
from knative_sponge.controller.kube import Kube
from knative_sponge.controller.resource import (
    AUTOSCALER_CONFIG,
    DEPLOYMENTS,
    POD_AUTOSCALERS,
    PODS,
    REVISIONS,
    SERVERLESS_SERVICES,
)


class Watches:
    """All that the leader looks at. Deployments and pods are only those of revisions."""

    def __init__(self, kube: Kube, system_namespace: str, rng: random.Random) -> None:
        self.autoscalers = Informer(kube, POD_AUTOSCALERS, rng=rng)
        self.revisions = Informer(kube, REVISIONS, rng=rng)
        self.services = Informer(kube, SERVERLESS_SERVICES, rng=rng)
        self.deployments = Informer(kube, DEPLOYMENTS, rng=rng, labels=REVISION_LABEL)
        self.pods = Informer(kube, PODS, rng=rng, labels=REVISION_LABEL)
        self.config = Informer(
            kube, AUTOSCALER_CONFIG, rng=rng, namespace=system_namespace, fields="metadata.name=config-autoscaler"
        )
        self._all = (self.autoscalers, self.revisions, self.services, self.deployments, self.pods, self.config)

    @property
    def synced(self) -> bool:
        """Was everything listed once?"""
        return all(informer.synced.is_set() for informer in self._all)

    async def wait(self) -> None:
        """Until everything was listed once."""
        for informer in self._all:
            await informer.synced.wait()

    @property
    def defaults(self) -> Mapping[str, str]:
        """Data of Knative's ConfigMap `config-autoscaler`."""
        for config in self.config.objects.values():
            return config.get("data") or {}
        return {}

    async def run(self) -> None:
        """Follow everything until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._all:
                group.create_task(informer.run(), name=f"watch {informer.resource}")
