"""The API server: get, list, watch, create, replace and patch on plain dicts. Calls are bounded; nothing decides or retries.

`kubernetes.aio` brings authentication (service account tokens that rotate, kubeconfig), TLS and the connection pool. Its
models stay unloaded: callers see the objects as they are on the wire.
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

from knative_sponge.controller.kube.api_json import Text, lines, read_event, read_object, read_page
from knative_sponge.controller.kube.port_forward import PROTOCOL, PortForward
from knative_sponge.controller.kube.resource import Object, Resource, Verb
from knative_sponge.errors import KubeConflict, KubeError, KubeGone, KubeNotFound, KubeUnreachable, SettingError

RETRY_S: Final = (0.2, 30.0)
"""First and longest wait before a call that failed is tried again (`core/backoff.py`)."""
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
"""The reason of a KubeError when a write is refused only because its namespace is being deleted."""

_CALL_S = 10.0
_WATCH_S = 240
"""The server ends a watch after this time; the next one goes on where it ended."""
_PORT_FORWARD = Resource("", "v1", "pods", frozenset({Verb.GET, Verb.CREATE}), subresource="portforward")
_LARGEST_MESSAGE = 2**20
"""Bytes of one message of a WebSocket; a container runtime sends what it reads at once, 32 KiB at most."""
_SILENCE_S = 150.0
"""A watch that is silent for longer is dead: the server sends a bookmark every minute."""
_T = TypeVar("_T")


class Patch(StrEnum):
    """The kind of a patch, by its content type."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    """Built-in types only: lists such as containers are merged by name."""


class WatchEventType(StrEnum):
    """The type of an event of a watch."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    """Nothing changed; only the object's resourceVersion means something."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects that matched. version: a watch from it tells all later changes."""

    items: tuple[Object, ...]
    version: str


class Kube:
    """One connection pool to one API server.

    Every call raises KubeNotFound, KubeConflict, KubeGone or KubeUnreachable, and for any other status KubeError.
    """

    def __init__(self, client: ApiClient, fence: Callable[[], float] | None = None) -> None:
        self._client = client
        self._fence = fence

    @classmethod
    async def connect(cls) -> Kube:
        """In a cluster by its service account, elsewhere by `$KUBECONFIG` or `~/.kube/config`. Raises SettingError without
        one."""
        configuration = Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
                kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                await kube_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except kube_config.ConfigException as error:
            raise SettingError(
                "KUBECONFIG", os.environ.get("KUBECONFIG"), f"a cluster's configuration ({error})"
            ) from error
        return cls(_client(configuration))

    @classmethod
    def at(cls, host: str) -> Kube:
        """An API server that asks for no credentials, such as `http://127.0.0.1:8001` of `kubectl proxy`."""
        return cls(_client(Configuration(host=host)))

    def fenced(self, fence: Callable[[], float]) -> Kube:
        """The same server with `fence` before each write: it returns the most seconds that the write may take, or raises to
        hold the write back."""
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
        """All objects that match the selectors, each as `keep` makes it. They are read in pages, to keep answers small."""

        def page(text: bytes) -> tuple[Object, list[Object]]:
            found = read_page(text)
            return found.metadata, [keep(item) for item in found.items or ()]

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
        """Changes after `version`, until the server ends the watch. Raises KubeGone when the server has forgotten `version`.

        read: decodes an object from its JSON.
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
        """Create an object; returns it as stored. Raises KubeConflict with reason `AlreadyExists` when its name is taken."""
        return await self._call(Verb.CREATE, resource, "POST", resource.path(namespace), body=body, read=read_object)

    async def replace(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """Replace an object that was read and changed. Raises KubeConflict when its resourceVersion is not the stored one."""
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
        """Change part of an object; returns what `read` makes of its new JSON. Raises KubeConflict when the patch names a
        `metadata.resourceVersion` that is not the stored one."""
        path = resource.path(namespace, name)
        return await self._call(Verb.PATCH, resource, "PATCH", path, body=body, content_type=kind, read=read)

    @asynccontextmanager
    async def forward(self, pod: str, namespace: str, port: int) -> AsyncIterator[PortForward]:
        """A connection to a port of the pod's own loopback address, while the block runs. Needs `get` and, from Kubernetes 1.35
        on, `create` on `pods/portforward`, which the controller has not: it is for people."""
        path = _PORT_FORWARD.path(namespace, pod)
        what = f"GET {path}"
        try:
            _, url, headers, _, _ = await self._client.param_serialize(
                "GET", path, query_params=[("ports", str(port))], auth_settings=["BearerToken"]
            )
            rest = self._client.rest_client
            if rest.pool_manager is None:
                rest.pool_manager = rest._create_pool_manager()
            async with rest.pool_manager.ws_connect(
                url, headers=headers, protocols=(PROTOCOL,), proxy=rest.proxy, max_msg_size=_LARGEST_MESSAGE
            ) as socket:
                yield PortForward(socket)
        except aiohttp.WSServerHandshakeError as error:
            raise _error(error.status, {"message": error.message}, what) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubeUnreachable(f"{what}: {type(error).__name__}: {error}") from error

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
        """A response with status 2xx, its head read. Every failure until the block ends is raised as a KubeError.

        bound_s: seconds for all of it. aiohttp's `total` is not used: when it ends in the same turn of the loop in which the
        task is cancelled, aiohttp swallows the cancellation, and the task goes on for ever.
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
                    # A connection that was not read to its end must not go back to the pool.
                    response.close() if not response.content.at_eof() else response.release()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubeUnreachable(f"{what}: {type(error).__name__}: {error}") from error


def _client(configuration: Configuration) -> ApiClient:
    """The proxy is looked up once, here: aiohttp would read the environment and ~/.netrc in a thread with each call."""
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
