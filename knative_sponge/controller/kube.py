"""The API server as five verbs on plain dicts; every call has a timeout, and nothing here decides or retries.

`kubernetes.aio` brings authentication (service account tokens that rotate, kubeconfig), TLS and the connection pool. Its
models stay unloaded: what goes over the wire is what callers see.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import aiohttp
import msgspec
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from knative_sponge.controller.resource import Object, Resource, Verb
from knative_sponge.errors import KubeConflict, KubeError, KubeGone, KubeNotFound, KubeUnreachable

NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
"""The reason of a KubeError when a write is refused only because its namespace is being deleted."""

_CALL_S = 10.0
_WATCH_S = 240
"""The server ends a watch after this time; the next one goes on where it ended."""
_SILENCE_S = 150.0
"""A watch that is silent for longer is dead: the server sends a bookmark every minute."""
_LONGEST_EVENT = 16 * 2**20


class Patch(StrEnum):
    """How a patch is to be read."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    """Built-in types only: lists such as containers are merged by name."""


class Change(StrEnum):
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

    def __init__(self, client: ApiClient, fence: Callable[[], None] | None = None) -> None:
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
        return cls(ApiClient(configuration))

    @classmethod
    def at(cls, host: str) -> Kube:
        """An API server that asks for no credentials, such as `http://127.0.0.1:8001` of `kubectl proxy`."""
        return cls(ApiClient(Configuration(host=host)))

    def fenced(self, fence: Callable[[], None]) -> Kube:
        """The same server; `fence` is called before each write and holds it back by raising."""
        return Kube(self._client, fence)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """One object."""
        return await self._call(Verb.GET, resource, "GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        keep: Callable[[Object], Object] = lambda item: item,
    ) -> Listing:
        """What `keep` leaves of all objects that match the selectors, in pages, so that no answer grows with the cluster."""
        items: list[Object] = []
        query = _selectors(labels, fields) | {"limit": "500"}
        while True:
            page = await self._call(Verb.LIST, resource, "GET", resource.path(namespace), query)
            items += map(keep, page.get("items") or ())
            if not (token := page["metadata"].get("continue")):
                return Listing(tuple(items), page["metadata"]["resourceVersion"])
            query["continue"] = token

    async def watch(
        self, resource: Resource, version: str, *, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[tuple[Change, Object]]:
        """What changes after `version`, until the server ends the watch. Raises KubeGone when it cannot tell any more."""
        _check(resource, Verb.WATCH)
        query = _selectors(labels, fields) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_S),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_S, sock_read=_SILENCE_S)
        async with self._answer("GET", resource.path(namespace), query, None, None, timeout) as response:
            async for line in _lines(response.content):
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 500), event["object"], f"watch {resource}")
                yield Change(event["type"]), event["object"]

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """A new object as the server stored it; KubeConflict with reason `AlreadyExists` when there is one."""
        return await self._call(Verb.CREATE, resource, "POST", resource.path(namespace), body=body)

    async def replace(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """The whole object, as it was read and changed; its resourceVersion makes a race a KubeConflict."""
        path = resource.path(namespace, body["metadata"]["name"])
        return await self._call(Verb.UPDATE, resource, "PUT", path, body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Object,
        namespace: str | None = None,
        *,
        kind: Patch = Patch.MERGE,
    ) -> Object:
        """Part of an object; a `metadata.resourceVersion` in a merge patch makes a race a KubeConflict."""
        return await self._call(
            Verb.PATCH, resource, "PATCH", resource.path(namespace, name), body=body, content_type=kind
        )

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
    ) -> Object:
        _check(resource, verb)
        if self._fence is not None and method != "GET":
            self._fence()
        timeout = aiohttp.ClientTimeout(total=_CALL_S)
        async with self._answer(method, path, query, body, content_type, timeout) as response:
            return _object(await response.read())

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str | None,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head arrived and says 2xx; whatever goes wrong until the block ends is one of our errors."""
        what = f"{method} {path}"
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
        try:
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
                    raise _error(response.status, _object(await response.read()), what)
                yield response
            finally:
                # Connections of watches that end early must not go back to the pool half read.
                response.close() if not response.content.at_eof() else response.release()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubeUnreachable(f"{what}: {type(error).__name__}: {error}") from error


def _check(resource: Resource, verb: Verb) -> None:
    if verb not in resource.verbs:
        raise PermissionError(f"{verb} {resource} is not among the verbs that the manifests grant")


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to a bound; aiohttp's own readline refuses objects that are larger than its buffer."""
    rest = bytearray()
    async for data in content.iter_any():
        start = len(rest)
        rest += data
        if b"\n" in data:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in whole:
                if line.strip():
                    yield line
        elif start > _LONGEST_EVENT:
            raise ValueError("an event is too long")


def _object(data: bytes) -> Object:
    found = msgspec.json.decode(data)
    if not isinstance(found, dict):
        raise ValueError("the answer is not an object")
    return found


_ERRORS = {404: KubeNotFound, 409: KubeConflict, 410: KubeGone}


def _error(status: int, body: Object, what: str) -> KubeError:
    reason = body.get("reason") or ""
    message = f"{what}: {status} {reason}: {body.get('message', '')}"
    causes = (body.get("details") or {}).get("causes") or ()
    if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in causes):
        reason = NAMESPACE_TERMINATING
    return _ERRORS.get(status, KubeError)(message, status=status, reason=reason)
