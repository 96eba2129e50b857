"""Finds the leading autoscaler and reads its overview, through the API server and with the user's own rights.

It needs `get` on Leases and on `pods/proxy` in the autoscaler's namespace, and writes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_kube_config

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import LEASES, Resource, Verb
from knative_sponge.controller.reporting.rows import Overview
from knative_sponge.errors import KubeError, KubeNotFound, KubeUnreachable

_NAMESPACE: Final = "knative-sponge"
_PORT: Final = 9090
_OVERVIEW: Final = Resource("", "v1", "pods", frozenset({Verb.GET}), subresource="proxy/sponge/v1/revisions")


class Leader:
    """The leading replica. It is looked up again after every failure, as another one may lead by then."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._pod: str | None = None

    async def overview(self) -> Overview:
        """The leader's present overview. Raises KubeError, and BoardError when the leader speaks another version."""
        pod, self._pod = self._pod or await self._find(), None
        try:
            document = await self._kube.get(_OVERVIEW, f"{pod}:{_PORT}", _NAMESPACE)
        except KubeError as error:
            message = f"the leader {pod} cannot be asked: {error}"
            raise type(error)(message, status=error.status, reason=error.reason) from error
        overview = Overview.from_json(document)
        self._pod = pod
        return overview

    async def _find(self) -> str:
        (name,) = LEASES.names
        try:
            lease = await self._kube.get(LEASES, name, _NAMESPACE)
        except KubeNotFound as error:
            message = (
                f"there is no Lease {name} in namespace {_NAMESPACE}: the autoscaler is not installed, or never ran"
            )
            raise KubeNotFound(message, status=404, reason="NotFound") from error
        holder: str = (lease.get("spec") or {}).get("holderIdentity") or ""
        if not holder:
            raise KubeUnreachable("no replica of the autoscaler leads at the moment")
        return holder


@asynccontextmanager
async def leader(kubeconfig: str | None, context: str | None) -> AsyncIterator[Leader]:
    """The leader of the cluster that a kubeconfig names. Raises KubeUnreachable when the kubeconfig cannot be used."""
    configuration = Configuration()
    try:
        await load_kube_config(kubeconfig, context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise KubeUnreachable(f"kubeconfig: {error}") from error
    kube = Kube(ApiClient(configuration))
    try:
        yield Leader(kube)
    finally:
        await kube.close()
