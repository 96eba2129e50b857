"""The informers that the leader's parts share, so that each resource is watched once; they only read.

They see every revision, pod and node of the cluster, whoever sizes it. A pod or Deployment takes tens of KiB of memory, so
only the fields that somebody reads are held. Every replica follows the nodes and the limits, because its webhook asks for
them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from functools import partial

from knative_sponge.controller.annotations import REVISION_LABEL
from knative_sponge.controller.cluster.node import kept_of_node
from knative_sponge.controller.cluster.ownership import kept_of_owner, read_owner
from knative_sponge.controller.cluster.pod_fields import read_pod
from knative_sponge.controller.cluster.pod_request import kept_of_pod
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.informer import Informer, without_managed_fields
from knative_sponge.controller.kube.resource import (
    AUTOSCALER_CONFIG,
    DEPLOYMENTS,
    LIMITS,
    NODES,
    POD_AUTOSCALERS,
    PODS,
    REPLICA_SETS,
    REVISIONS,
    SERVERLESS_SERVICES,
    Object,
)
from knative_sponge.controller.quarantine import Failures


def kept_of_revision(item: Object) -> Object:
    """The Revision's metadata."""
    return {"metadata": without_managed_fields(item)["metadata"]}


def kept_of_deployment(item: Object) -> Object:
    """The Deployment without its pod template. It changes its argument."""
    item["spec"].pop("template", None)
    return without_managed_fields(item)


def limits_config(kube: Kube, namespace: str, rng: random.Random, failures: Failures | None = None) -> Informer:
    """The informer of the ConfigMap with the administrator's limits. namespace: the controller's own."""
    fields = f"metadata.name={LIMITS.names[0]}"
    return Informer(kube, LIMITS, rng=rng, namespace=namespace, fields=fields, failures=failures)


class Nodes(Informer):
    """The informer of all nodes. It runs as long as the process; its subscribers are the leader's parts, and go with them."""

    def __init__(self, kube: Kube, rng: random.Random, failures: Failures | None = None) -> None:
        super().__init__(kube, NODES, rng=rng, keep=kept_of_node, failures=failures)

    def forget_subscribers(self) -> None:
        """Tell the present subscribers nothing any more: this replica leads no longer."""
        self._subscribers.clear()


class Watches:
    """All that the leader watches. Only Deployments and ReplicaSets of revisions are among it.

    nodes, limits: the caller runs these informers; without limits nobody is bounded. failures: where objects that fail are
    reported.
    """

    def __init__(
        self,
        kube: Kube,
        system_namespace: str,
        rng: random.Random,
        nodes: Nodes,
        limits: Informer | None = None,
        failures: Failures | None = None,
    ) -> None:
        follow = partial(Informer, kube, rng=rng, failures=failures)
        self.autoscalers = follow(POD_AUTOSCALERS)
        self.revisions = follow(REVISIONS, keep=kept_of_revision)
        self.services = follow(SERVERLESS_SERVICES)
        self.deployments = follow(DEPLOYMENTS, labels=REVISION_LABEL, keep=kept_of_deployment)
        self.replica_sets = follow(REPLICA_SETS, labels=REVISION_LABEL, read=read_owner, keep=kept_of_owner)
        self.pods = follow(PODS, read=read_pod, keep=kept_of_pod)
        self.nodes = nodes
        self.config = follow(
            AUTOSCALER_CONFIG, namespace=system_namespace, fields=f"metadata.name={AUTOSCALER_CONFIG.names[0]}"
        )
        self._own = (
            self.autoscalers,
            self.revisions,
            self.services,
            self.deployments,
            self.replica_sets,
            self.pods,
            self.config,
        )
        self._all = (*self._own, nodes) if limits is None else (*self._own, nodes, limits)

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
        """Follow everything but nodes and limits until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._own:
                group.create_task(informer.run(), name=f"watch {informer.resource}")
