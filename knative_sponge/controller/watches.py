"""The informers that the leader's parts share, so that each resource is watched once; they only read.

They see every revision, pod and node of the cluster, ours or not, and a pod or Deployment takes tens of KiB of memory: of
those only what somebody reads is held.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from knative_sponge.controller.annotations import REVISION_LABEL
from knative_sponge.controller.footprint import kept_of_pod
from knative_sponge.controller.informer import Informer, whole
from knative_sponge.controller.kube import Kube
from knative_sponge.controller.nodeview import kept_of_node
from knative_sponge.controller.podslim import read_pod
from knative_sponge.controller.resource import (
    AUTOSCALER_CONFIG,
    DEPLOYMENTS,
    NODES,
    POD_AUTOSCALERS,
    PODS,
    REVISIONS,
    SERVERLESS_SERVICES,
    Object,
)


def kept_of_revision(item: Object) -> Object:
    """Who it is and what labels say."""
    return {"metadata": whole(item)["metadata"]}


def kept_of_deployment(item: Object) -> Object:
    """All but the pods' template."""
    item["spec"].pop("template", None)
    return whole(item)


class Watches:
    """All that the leader looks at. Deployments are only those of revisions."""

    def __init__(self, kube: Kube, system_namespace: str, rng: random.Random) -> None:
        self.autoscalers = Informer(kube, POD_AUTOSCALERS, rng=rng)
        self.revisions = Informer(kube, REVISIONS, rng=rng, keep=kept_of_revision)
        self.services = Informer(kube, SERVERLESS_SERVICES, rng=rng)
        self.deployments = Informer(kube, DEPLOYMENTS, rng=rng, labels=REVISION_LABEL, keep=kept_of_deployment)
        self.pods = Informer(kube, PODS, rng=rng, read=read_pod, keep=kept_of_pod)
        self.nodes = Informer(kube, NODES, rng=rng, keep=kept_of_node)
        self.config = Informer(
            kube, AUTOSCALER_CONFIG, rng=rng, namespace=system_namespace, fields="metadata.name=config-autoscaler"
        )
        self._all = (
            self.autoscalers,
            self.revisions,
            self.services,
            self.deployments,
            self.pods,
            self.nodes,
            self.config,
        )

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
