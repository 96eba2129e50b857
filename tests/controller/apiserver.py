"""An API server in memory, spoken to over real HTTP: versions, conflicts, watches that break or forget, subresources."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from aiohttp import web

from knative_sponge.controller.kube.resource import ALL, Key, Object, Resource


class Refused(Exception):
    """The server answers with a Status object."""

    def __init__(self, code: int, reason: str, message: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.body: Object = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


class FakeApi:
    """`async with FakeApi() as api:` serves at `api.url`. Tests write with `put` and `remove`, clients over HTTP.

    page: most items of one answer to a list. before: called with (method, path) ahead of every request; may change the
    server or raise Refused.
    """

    def __init__(self, *, page: int = 500) -> None:
        self.url = ""
        self.page = page
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.calls: list[tuple[str, str, str, Any]] = []
        """(method, path, content type, body) of every write."""
        self.lists = 0
        self.watches = 0
        self.held: set[str] = set()
        """Collections (`resource.path()`) whose watches tell nothing for now."""
        self._version = 100
        self._objects: dict[str, dict[Key, Object]] = {resource.path(): {} for resource in ALL}
        self._history: list[tuple[int, str, str, Object]] = []
        self._forgotten = 0
        self._changed = asyncio.Condition()
        self._broken = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FakeApi:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.cut()
        await self._runner.cleanup()

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """The stored object, as a copy."""
        found = self._objects[resource.path()].get((namespace, name))
        return copy.deepcopy(found)

    def all(self, resource: Resource) -> list[Object]:
        """All stored objects, as copies."""
        return copy.deepcopy(list(self._objects[resource.path()].values()))

    def put(self, resource: Resource, item: Object) -> Object:
        """Store what somebody else wrote."""
        item = copy.deepcopy(item)
        metadata = item["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        old = self._objects[resource.path()].get(key)
        metadata.setdefault("uid", f"uid-{resource.plural}-{metadata['name']}")
        metadata["generation"] = 1
        if old is not None:
            changed = old.get("spec") != item.get("spec")
            metadata["generation"] = old["metadata"]["generation"] + changed
        self._store(resource.path(), key, item, "MODIFIED" if old else "ADDED")
        return copy.deepcopy(item)

    def change(self, resource: Resource, name: str, namespace: str, **parts: Object) -> None:
        """Merge into an object, as somebody else would: `change(DEPLOYMENTS, "d", "ns", status={"readyReplicas": 1})`."""
        item = self.get(resource, name, namespace)
        assert item is not None
        self.put(resource, _merged(item, parts))

    def remove(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Delete an object."""
        item = self._objects[resource.path()].pop((namespace, name))
        self._tell(resource.path(), "DELETED", item)

    def cut(self) -> None:
        """Break all watches in mid-stream."""
        self._broken += 1
        self._notify()

    def forget(self) -> None:
        """Watches can no more go on from a version before now."""
        self._forgotten = self._version

    def writes(self, *, to: str = "") -> list[tuple[str, str]]:
        """(method, path) of the writes whose path contains `to`."""
        return [(method, path) for method, path, _, _ in self.calls if to in path]

    def _store(self, base: str, key: Key, item: Object, change: str) -> None:
        self._objects[base][key] = item
        self._tell(base, change, item)

    def _tell(self, base: str, change: str, item: Object) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, base, change, copy.deepcopy(item)))
        self._notify()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            self.before(request.method, request.path)
            base, namespace, name, subresource = self._route(request.path)
            if request.query.get("watch") == "true":
                return await self._watch(request, base, namespace)
            body: Object = await request.json() if request.can_read_body else {}
            if request.method != "GET":
                self.calls.append((request.method, request.path, request.headers["Content-Type"], body))
            match request.method:
                case "GET" if not name:
                    return web.json_response(self._list(request, base, namespace))
                case "GET":
                    return web.json_response(self._one(base, namespace, name))
                case "POST":
                    return web.json_response(self._create(base, namespace, body), status=201)
                case "PUT":
                    return web.json_response(self._replace(base, namespace, name, body))
                case "PATCH":
                    kind = request.headers["Content-Type"]
                    return web.json_response(self._patch(base, namespace, name, subresource, body, kind))
            raise Refused(405, "MethodNotAllowed")
        except Refused as refused:
            return web.json_response(refused.body, status=refused.code)

    def _route(self, path: str) -> tuple[str, str, str, str]:
        """Collection, namespace, name, subresource."""
        parts = path.strip("/").split("/")
        root = 2 if parts[0] == "api" else 3
        namespace = ""
        rest = parts[root:]
        if rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        base = "/" + "/".join([*parts[:root], rest[0]])
        if base not in self._objects:
            raise Refused(404, "NotFound", "no such resource")
        return base, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""

    def _one(self, base: str, namespace: str, name: str) -> Object:
        if (item := self._objects[base].get((namespace, name))) is None:
            raise Refused(404, "NotFound", f"{name} not found")
        return item

    def _list(self, request: web.Request, base: str, namespace: str) -> Object:
        self.lists += 1
        found = [item for item in self._objects[base].values() if _selected(request, namespace, item)]
        start = int(request.query.get("continue", 0))
        end = start + min(self.page, int(request.query.get("limit", self.page)))
        metadata = {"resourceVersion": str(self._version)} | ({"continue": str(end)} if end < len(found) else {})
        return {"metadata": metadata, "items": found[start:end]}

    def _create(self, base: str, namespace: str, body: Object) -> Object:
        key = (namespace, body["metadata"]["name"])
        if key in self._objects[base]:
            raise Refused(409, "AlreadyExists", f"{key[1]} already exists")
        body["metadata"] |= {"uid": f"uid-{key[1]}", "generation": 1} | ({"namespace": namespace} if namespace else {})
        self._store(base, key, body, "ADDED")
        return body

    def _replace(self, base: str, namespace: str, name: str, body: Object) -> Object:
        self._check_version(self._one(base, namespace, name), body)
        self._store(base, (namespace, name), body, "MODIFIED")
        return body

    def _patch(self, base: str, namespace: str, name: str, subresource: str, body: Object, kind: str) -> Object:
        old = self._one(base, namespace, name)
        self._check_version(old, body)
        body = {key: part for key, part in body.items() if key != "metadata"}
        if subresource == "status":
            body = {"status": body["status"]}
        elif subresource == "scale":
            body = {"spec": {"replicas": body["spec"]["replicas"]}}
        new: Object = _merged(old, body, by_name=kind == "application/strategic-merge-patch+json")
        new["metadata"]["generation"] = old["metadata"].get("generation", 1) + (new.get("spec") != old.get("spec"))
        self._store(base, (namespace, name), new, "MODIFIED")
        return new

    def _check_version(self, old: Object, body: Object) -> None:
        version = body.get("metadata", {}).get("resourceVersion")
        if version is not None and version != old["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict", "the object has been modified")

    async def _watch(self, request: web.Request, base: str, namespace: str) -> web.StreamResponse:
        self.watches += 1
        broken = self._broken
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if since < self._forgotten:
            expired = Refused(410, "Expired", "too old resource version").body
            await response.write(json.dumps({"type": "ERROR", "object": expired}).encode() + b"\n")
            return response
        while True:
            if self._broken != broken:
                with contextlib.suppress(ConnectionError):
                    await response.write(b'{"type": "ADD')
                if request.transport is not None:
                    request.transport.abort()
                return response
            for version, where, change, item in () if base in self.held else list(self._history):
                if version > since:
                    since = version
                    if where == base and _selected(request, namespace, item):
                        await response.write(json.dumps({"type": change, "object": item}).encode() + b"\n")
            async with self._changed:
                await self._changed.wait_for(
                    lambda seen=since: (self._version > seen and base not in self.held) or self._broken != broken  # type: ignore[misc]
                )


def _selected(request: web.Request, namespace: str, item: Object) -> bool:
    metadata = item["metadata"]
    if namespace and metadata.get("namespace", "") != namespace:
        return False
    labels = metadata.get("labels") or {}
    for label, equals, text in (term.partition("=") for term in _terms(request, "labelSelector")):
        if label.startswith("!"):
            if label[1:] in labels:
                return False
        elif label not in labels or (equals and labels[label] != text):
            return False
    return all(term == f"metadata.name={metadata['name']}" for term in _terms(request, "fieldSelector"))


def _terms(request: web.Request, name: str) -> Iterator[str]:
    return (term for term in request.query.get(name, "").split(",") if term)


def _merged(old: Any, new: Any, *, by_name: bool = False) -> Any:
    """JSON merge patch (RFC 7386); by_name merges lists of objects by their `name` as strategic merge patches do."""
    if isinstance(new, dict):
        merged = dict(old) if isinstance(old, dict) else {}
        for key, value in new.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = _merged(merged.get(key), value, by_name=by_name)
        return copy.deepcopy(merged)
    if by_name and isinstance(new, list) and isinstance(old, list):
        changes = {item["name"]: item for item in new}
        return [_merged(item, changes.get(item["name"], {}), by_name=True) for item in old]
    return copy.deepcopy(new)
