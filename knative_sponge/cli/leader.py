"""Finds the leading autoscaler and reads its overview, through the API server and with the user's own rights.

The overview is for the leader's own pod only, so a port of it is forwarded. That needs `get` on Leases, and `get` and `create`
on `pods/portforward`, in the autoscaler's namespace; nothing is written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_kube_config

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import LEASES
from knative_sponge.controller.reporting.rows import PATH, BoardError, Overview
from knative_sponge.errors import KubeError, KubeNotFound, KubeUnreachable, WireError
from knative_sponge.wire.http import AnswerReader, request

_NAMESPACE: Final = "knative-sponge"
_PORT: Final = 9090
_ANSWER_S: Final = 10.0
_LARGEST: Final = 64 * 2**20
"""Bytes of an overview; one of 2,000 pods has 2 MB."""


class Leader:
    """The leading replica. It is looked up again after every failure, as another one may lead by then."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._pod: str | None = None

    async def overview(self) -> Overview:
        """The leader's present overview. Raises KubeError, and BoardError when the leader speaks another version."""
        pod, self._pod = self._pod or await self._find(), None
        try:
            document = await self._ask(pod)
        except KubeError as error:
            message = f"the leader {pod} cannot be asked: {error}"
            raise type(error)(message, status=error.status, reason=error.reason) from error
        overview = Overview.from_json(document)
        self._pod = pod
        return overview

    async def _ask(self, pod: str) -> dict[str, Any]:
        reader, body = AnswerReader(200), bytearray()
        try:
            async with asyncio.timeout(_ANSWER_S), self._kube.forward(pod, _NAMESPACE, _PORT) as way:
                await way.send(request("GET", PATH, "localhost", _PORT, None))
                async for piece in way.pieces():
                    body += reader.feed(piece)
                    if len(body) > _LARGEST:
                        raise KubeUnreachable(f"an overview of more than {_LARGEST} bytes")
                    if reader.ended:
                        break
                reader.finish()
        except WireError as error:
            words = "this replica does not lead" if error.status == 503 else str(error)
            raise KubeError(words, status=error.status or 0) from error
        except TimeoutError as error:
            raise KubeUnreachable(f"no answer within {_ANSWER_S:g} s") from error
        try:
            document: dict[str, Any] = json.loads(body)
        except ValueError as error:
            raise BoardError(f"the leader's overview is no JSON: {error}") from error
        return document

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
