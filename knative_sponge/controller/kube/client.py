"""The API server as five verbs on plain dicts; every call has a timeout, and nothing here decides or retries.

`kubernetes.aio` brings authentication (service account tokens that rotate, kubeconfig), TLS and the connection pool. Its
models stay unloaded: what goes over the wire is what callers see.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from knative_sponge.controller.kube.resource import Object, Resource, Verb
from knative_sponge.controller.kube.wire import Text, lines, read_event, read_object, read_page
from knative_sponge.errors import KubeConflict, KubeError, KubeGone, KubeNotFound, KubeUnreachable

RETRY_S: Final = (0.2, 30.0)
"""First and longest wait before a call that failed is tried again (`core/backoff.py`)."""
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
"""The reason of a KubeError when a write is refused only because its namespace is being deleted."""

_CALL_S = 10.0
_WATCH_S = 240
"""The server ends a watch after this time; the next one goes on where it ended."""
_SILENCE_S = 150.0
"""A watch that is silent for longer is dead: the server sends a bookmark every minute."""
_T = TypeVar("_T")


class Patch(StrEnum):
    """How a patch is to be read."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    """Built-in types only: lists such as containers are merged by name."""


class WatchEventType(StrEnum):
    """What a watch tells."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    """Nothing changed; only the object's resourceVersion counts."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects that matched, and the version from which a watch tells what comes after."""

    items: tuple[Object, ...]
    version: str


class Kube:
    """One connection pool to one API server.

    Every call raises KubeNotFound, KubeConflict, KubeGone, KubeUnreachable, or KubeError with the status for the rest.
    """

    def __init__(self, client: ApiClient, fence: Callable[[], float] | None = None) -> None:
        self._client = client
        self._fence = fence

    @classmethod
    async def connect(cls) -> Kube:
        """In a cluster by its service account, elsewhere by `$KUBECONFIG` or `~/.kube/config`."""
        configuration = Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await kube_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(_client(configuration))

    @classmethod
    def at(cls, host: str) -> Kube:
        """An API server that asks for no credentials, such as `http://127.0.0.1:8001` of `kubectl proxy`."""
        return cls(_client(Configuration(host=host)))

    def fenced(self, fence: Callable[[], float]) -> Kube:
        """The same server; `fence` is called before each write. It says how many seconds the write may take at most, or holds
        it back by raising."""
        return Kube(self._client, fence)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """One object."""
        return await self._call(Verb.GET, resource, "GET", resource.path(namespace, name), read=read_object)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        keep: Callable[[Text], Object] = read_object,
    ) -> Listing:
        """What `keep` makes of all objects that match the selectors, in pages, so that no answer grows with the cluster."""

        def page(text: bytes) -> tuple[Object, list[Object]]:
            whole = read_page(text)
            return whole.metadata, [keep(item) for item in whole.items or ()]

        items: list[Object] = []
        query = _selectors(labels, fields) | {"limit": "500"}
        while True:
            metadata, found = await self._call(Verb.LIST, resource, "GET", resource.path(namespace), query, read=page)
            items += found
            if not (token := metadata.get("continue")):
                return Listing(tuple(items), metadata["resourceVersion"])
            query["continue"] = token

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
        """What changes after `version`, until the server ends the watch. Raises KubeGone when it cannot tell any more.

        read: an object from its JSON.
        """
        _check(resource, Verb.WATCH)
        query = _selectors(labels, fields) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_S),
        }
        async with self._answer("GET", resource.path(namespace), query, None, None, None) as response:
            async for line in lines(response.content.iter_any()):
                event = read_event(line)
                if event.type == "ERROR":
                    status = read_object(event.object)
                    raise _error(status.get("code", 500), status, f"watch {resource}")
                yield WatchEventType(event.type), read(event.object)

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """A new object as the server stored it; KubeConflict with reason `AlreadyExists` when there is one."""
        return await self._call(Verb.CREATE, resource, "POST", resource.path(namespace), body=body, read=read_object)

    async def replace(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """The whole object, as it was read and changed; its resourceVersion makes a race a KubeConflict."""
        path = resource.path(namespace, body["metadata"]["name"])
        return await self._call(Verb.UPDATE, resource, "PUT", path, body=body, read=read_object)

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
        """Part of an object; a `metadata.resourceVersion` in a merge patch makes a race a KubeConflict.

        read: what is returned of the object's JSON.
        """
        path = resource.path(namespace, name)
        return await self._call(Verb.PATCH, resource, "PATCH", path, body=body, content_type=kind, read=read)

    async def _call(
        self,
        verb: Verb,
        resource: Resource,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        content_type: str | None = None,
        read: Callable[[bytes], _T],
    ) -> _T:
        _check(resource, verb)
        bound_s = _CALL_S
        if self._fence is not None and method != "GET":
            bound_s = min(bound_s, self._fence())
        async with self._answer(method, path, query, body, content_type, bound_s) as response:
            return read(await response.read())

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str | None,
        bound_s: float | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head arrived and says 2xx; whatever goes wrong until the block ends is one of our errors.

        bound_s: seconds for all of it. Not aiohttp's `total`: when that ends in the same turn of the loop in which the task is
        cancelled, as on a starved machine, aiohttp takes both for its own, and the task goes on for ever.
        """
        what = f"{method} {path}"
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_S, sock_read=_SILENCE_S)
        try:
            async with asyncio.timeout(bound_s):
                method, url, headers, body, _ = await self._client.param_serialize(
                    method,
                    path,
                    query_params=list((query or {}).items()),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = await self._client.call_api(method, url, headers, body, _request_timeout=limits)
                response: aiohttp.ClientResponse = answer.response
                try:
                    if response.status >= 300:
                        raise _error(response.status, read_object(await response.read()), what)
                    yield response
                finally:
                    # Connections of watches that end early must not go back to the pool half read.
                    response.close() if not response.content.at_eof() else response.release()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubeUnreachable(f"{what}: {type(error).__name__}: {error}") from error


def _client(configuration: Configuration) -> ApiClient:
    """Left to itself, the client would look for a proxy in the environment, and into ~/.netrc, with each call, in a thread."""
    server = urlsplit(configuration.host)
    if configuration.proxy is None and not proxy_bypass(server.netloc):
        configuration.proxy = getproxies().get(server.scheme)
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiClient(configuration)


def _check(resource: Resource, verb: Verb) -> None:
    if verb not in resource.verbs:
        raise PermissionError(f"{verb} {resource} is not among the verbs that the manifests grant")


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}


_ERRORS = {404: KubeNotFound, 409: KubeConflict, 410: KubeGone}


def _error(status: int, body: Object, what: str) -> KubeError:
    reason = body.get("reason") or ""
    message = f"{what}: {status} {reason}: {body.get('message', '')}"
    causes = (body.get("details") or {}).get("causes") or ()
    if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in causes):
        reason = NAMESPACE_TERMINATING
    return _ERRORS.get(status, KubeError)(message, status=status, reason=reason)
