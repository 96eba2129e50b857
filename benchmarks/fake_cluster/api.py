"""The API server and the kubelets: objects in memory, each kept as the bytes that lists and watches send. Decides nothing.

There is no authentication, no admission and no quota. Every write is counted. A write is refused only when its object is
missing, exists already or has changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from benchmarks.fake_cluster.http import Connection
from knative_sponge.controller.kube.resource import ALL, PODS, Key, Object, Resource

_KUBELET_S: Final = 0.1
_BOOKMARK_S: Final = 60.0
_REMEMBERED: Final = 50_000


@dataclass(slots=True)
class _Item:
    object: Any
    text: bytes


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which objects a list or a watch is about."""

    base: str
    namespace: str
    labels: str
    fields: str

    def fits(self, base: str, item: Any) -> bool:
        """Selectors have one term: `label`, `!label`, `label=text`; `metadata.name=text`."""
        metadata = item["metadata"]
        if base != self.base or (self.namespace and metadata.get("namespace", "") != self.namespace):
            return False
        if self.fields and self.fields != f"metadata.name={metadata['name']}":
            return False
        label, equals, text = self.labels.partition("=")
        labels = metadata.get("labels") or {}
        if label.startswith("!"):
            return label[1:] not in labels
        return not label or (label in labels and (not equals or labels[label] == text))


class Api:
    """All objects. resized: is given (pod, cores) of every patch of a size, as it arrives."""

    def __init__(self, resized: Callable[[Key, float], None]) -> None:
        self.writes: Counter[str] = Counter()
        """Writes by method and resource."""
        self._resized = resized
        self._version = 1
        self._items: dict[str, dict[Key, _Item]] = {resource.path(): {} for resource in ALL}
        self._history: deque[tuple[int, str, str, _Item]] = deque(maxlen=_REMEMBERED)
        self._watching: dict[Connection, _Selection] = {}

    def put(self, resource: Resource, item: Object) -> None:
        """Store an object."""
        metadata = item["metadata"]
        self._store(resource.path(), (metadata.get("namespace", ""), metadata["name"]), item)

    async def bookmarks(self) -> None:
        """Send all watches a bookmark, once a minute."""
        while True:
            await asyncio.sleep(_BOOKMARK_S)
            text = msgspec.json.encode(
                {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self._version)}}}
            )
            for connection in self._watching:
                connection.chunk(text + b"\n")

    def handle(self, connection: Connection) -> None:
        """One request."""
        base, namespace, name, subresource = _route(connection.path)
        items = self._items.get(base)
        if items is None:
            connection.reply(404, _status(404))
            return
        query = connection.query
        selection = _Selection(base, namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if query.get("watch") == "true":
            self._watch(connection, selection, int(query["resourceVersion"]))
        elif connection.method == "GET" and not name:
            self._list(connection, items, selection)
        elif connection.method == "GET":
            item = items.get((namespace, name))
            connection.reply(404, _status(404)) if item is None else connection.reply(200, item.text)
        else:
            self._write(connection, base, namespace, name, subresource)

    def _list(self, connection: Connection, items: dict[Key, _Item], selection: _Selection) -> None:
        start, limit = int(connection.query.get("continue", 0)), int(connection.query.get("limit", 500))
        found = [item.text for item in items.values() if selection.fits(selection.base, item.object)]
        metadata = {"resourceVersion": str(self._version)}
        if start + limit < len(found):
            metadata["continue"] = str(start + limit)
        body = b",".join(found[start : start + limit])
        connection.reply(200, b'{"metadata":%b,"items":[%b]}' % (msgspec.json.encode(metadata), body))

    def _watch(self, connection: Connection, selection: _Selection, since: int) -> None:
        connection.stream()
        if self._history and since < self._history[0][0] - 1:
            connection.chunk(b'{"type":"ERROR","object":%b}\n' % _status(410))
            connection.end()
            return
        for version, base, change, item in self._history:
            if version > since and selection.fits(base, item.object):
                connection.chunk(_event(change, item))
        self._watching[connection] = selection

        def gone() -> None:
            self._watching.pop(connection, None)

        connection.closed = gone
        loop = asyncio.get_running_loop()
        loop.call_later(float(connection.query.get("timeoutSeconds", 300)), self._end, connection)

    def _end(self, connection: Connection) -> None:
        if self._watching.pop(connection, None) is not None:
            connection.end()

    def _write(self, connection: Connection, base: str, namespace: str, name: str, subresource: str) -> None:
        method, body = connection.method, msgspec.json.decode(connection.body)
        plural = base.rpartition("/")[2]
        self.writes[f"{method} {plural}" + (f"/{subresource}" if subresource else "")] += 1
        key = (namespace, name or body["metadata"]["name"])
        old = self._items[base].get(key)
        if method == "POST":
            if old is not None:
                connection.reply(409, _status(409, "AlreadyExists"))
                return
            body["metadata"] |= {"uid": f"uid-{plural}-{key[1]}", "generation": 1}
            new = body
        elif old is None:
            connection.reply(404, _status(404))
            return
        else:
            version = (body.get("metadata") or {}).get("resourceVersion")
            if version is not None and version != old.object["metadata"]["resourceVersion"]:
                connection.reply(409, _status(409, "Conflict"))
                return
            new = body if method == "PUT" else self._patched(old.object, body, subresource)
        if subresource == "resize":
            self._resize(key, body)
        item = self._store(base, key, new)
        connection.reply(201 if method == "POST" else 200, item.text)

    def _patched(self, old: Any, body: Any, subresource: str) -> Any:
        part = {name: body[name] for name in body if name != "metadata"}
        new = _merged(old, part, by_name=subresource == "resize")
        if subresource != "status":
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        return new

    def _resize(self, key: Key, body: Any) -> None:
        (change,) = body["spec"]["containers"]
        self._resized(key, _cores(change["resources"]["requests"]["cpu"]))
        asyncio.get_running_loop().call_later(_KUBELET_S, self._apply, key)

    def _apply(self, key: Key) -> None:
        """Act as the kubelet: bring the sizes of the spec into force."""
        item = self._items[PODS.path()].get(key)
        if item is None:
            return
        pod = item.object
        wanted = {one["name"]: one["resources"] for one in pod["spec"]["containers"]}
        statuses = [
            {
                **one,
                "resources": {**one.get("resources", {}), **wanted[one["name"]]},
                "allocatedResources": wanted[one["name"]].get("requests", {}),
            }
            for one in pod["status"]["containerStatuses"]
        ]
        status = pod["status"] | {
            "containerStatuses": statuses,
            "observedGeneration": pod["metadata"]["generation"],
        }
        self._store(PODS.path(), key, {**pod, "status": status, "metadata": dict(pod["metadata"])})

    def _store(self, base: str, key: Key, item: Any) -> _Item:
        change = "MODIFIED" if key in self._items[base] else "ADDED"
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        stored = self._items[base][key] = _Item(item, msgspec.json.encode(item))
        self._history.append((self._version, base, change, stored))
        event = b""
        for connection, selection in self._watching.items():
            if selection.fits(base, item):
                event = event or _event(change, stored)
                connection.chunk(event)
        return stored


def _event(change: str, item: _Item) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (change.encode(), item.text)


def _status(code: int, reason: str = "") -> bytes:
    return msgspec.json.encode({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": ""})


def _route(path: str) -> tuple[str, str, str, str]:
    """Collection, namespace, name, subresource."""
    parts: Iterator[str] = iter(path.strip("/").split("/"))
    root = [next(parts)]
    root += [next(parts) for _ in range(1 if root == ["api"] else 2)]
    rest = list(parts)
    namespace = ""
    if rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    rest += ["", ""]
    return "/" + "/".join([*root, rest[0]]), namespace, rest[1], rest[2]


def _cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _merged(old: Any, new: Any, *, by_name: bool) -> Any:
    """The merge patch applied. Unchanged parts are shared, as no object is changed once it is stored."""
    if isinstance(new, dict):
        merged = dict(old) if isinstance(old, dict) else {}
        for name, value in new.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = _merged(merged.get(name), value, by_name=by_name)
        if "metadata" in merged:
            merged["metadata"] = dict(merged["metadata"])
        return merged
    if by_name and isinstance(new, list) and isinstance(old, list):
        changes = {item["name"]: item for item in new}
        return [_merged(item, changes.get(item["name"], {}), by_name=True) for item in old]
    return new
