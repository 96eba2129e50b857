"""A local copy of the objects of one resource, kept by list and watch; it never writes and never decides.

Subscribers are told each change with the object before and after it. After a lost connection the watch goes on from the
last version seen. When the server has forgotten that version, the informer lists everything again and tells the differences.
So no subscriber ever misses that an object changed or went away.

An object that cannot be read harms no other: what was known of it before holds on. Nor does a subscriber that fails: it is told
again of that object after a while.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from knative_sponge.controller.kube.api_json import Text, read_metadata, read_object
from knative_sponge.controller.kube.client import RETRY_S, Kube, WatchEventType
from knative_sponge.controller.kube.resource import Key, Object, Resource
from knative_sponge.controller.quarantine import Failures
from knative_sponge.core.backoff import Backoff
from knative_sponge.errors import KubeError, KubeGone

_log: Final = logging.getLogger(__name__)

_PAUSE_S: Final = 0.5
"""Between two watches when the first told nothing: a server that ends each at once must not be called in a tight loop."""

_UNREADABLE: Final = "knative-sponge.dev/unreadable"
"""A field that marks an object of which only the metadata could be read."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Changed(Generic[_T]):
    """One change of one object. before: None for a new object. after: None for one that is gone.

    Raises ValueError where both are None: then nothing has changed.
    """

    key: Key
    before: _T | None
    after: _T | None

    def __post_init__(self) -> None:
        if self.before is None and self.after is None:
            raise ValueError(f"{self.key}: neither before nor after")

    @property
    def last(self) -> _T:
        """The object as it is, or as it was when it went."""
        last = self.before if self.after is None else self.after
        assert last is not None
        return last


Subscriber = Callable[[Changed[Object]], None]


def key_of(item: Object) -> Key:
    """Namespace and name of an object."""
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def without_managed_fields(item: Object) -> Object:
    """The object without `managedFields`: these are half of its size, and nobody reads them. It changes its argument."""
    item["metadata"].pop("managedFields", None)
    return item


class Informer:
    """The objects of one resource that match the selectors. `run` it in a task; it ends only by cancellation.

    read: decodes an object from its JSON, or as much of it as `keep` needs. keep: makes of a decoded object what is held of it;
    namespace, name and resourceVersion of its metadata must stay. `keep` may change its argument. failures: where objects that
    fail are reported.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        *,
        rng: random.Random,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        read: Callable[[Text], Object] = read_object,
        keep: Callable[[Object], Object] = without_managed_fields,
        failures: Failures | None = None,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        """Set once everything was listed; it stays set after a connection was lost."""
        self._kube = kube
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._read = read
        self._keep = keep
        self._objects: dict[Key, Object] = {}
        self._subscribers: list[Subscriber] = []
        self._backoff = Backoff(*RETRY_S, rng.random)
        self._version = ""
        failures = failures or Failures()
        self._unread = failures.of(f"read {resource}")
        self._untold = failures.of(f"follow {resource}")
        self._missed: dict[tuple[Subscriber, Key], tuple[Object | None, asyncio.TimerHandle]] = {}
        """Objects as a subscriber was told of them before it failed, and the timer of its next try."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell `subscriber` each change from now on; it must not block. Where it raises, it is told again later."""
        self._subscribers.append(subscriber)

    def learn(self, item: Object) -> None:
        """Take over what a write returned: the next decision then rests on it and runs into no conflict.

        An object that is not known any more is not taken over: it was deleted, and must not come back. Nor is one of which a
        later version is known: the answer was slow, and no event would follow that corrects it.
        """
        known = self._objects.get(key_of(item))
        if known is not None and not _is_later(known, item):
            self._put(key_of(item), self._kept(item))

    def get(self, key: Key) -> Object | None:
        """The object as last seen. It is shared: never change it."""
        return self._objects.get(key)

    @property
    def objects(self) -> Mapping[Key, Object]:
        """All objects as last seen."""
        return self._objects

    async def run(self) -> None:
        """List, then watch, until cancelled; failures are retried with growing waits."""
        try:
            await self._follow()
        finally:
            for _, again in self._missed.values():
                again.cancel()
            self._missed.clear()

    async def _follow(self) -> None:
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except KubeGone:
                _log.info("%s: history is gone, listing again", self.resource)
                self._version = ""
            except KubeError as error:
                wait_s = self._backoff.wait_s()
                _log.warning("%s: %s; next try in %.1f s", self.resource, error, wait_s)
                await asyncio.sleep(wait_s)

    async def _list(self) -> None:
        listing = await self._kube.list(
            self.resource,
            namespace=self._namespace,
            labels=self._labels,
            fields=self._fields,
            keep=self._listed,
        )
        found = {key_of(item): item for item in listing.items if _UNREADABLE not in item}
        for key in [key for key in self._objects if key not in found]:
            self._put(key, None)
        for key, item in found.items():
            self._put(key, item)
        self._version = listing.version
        self.synced.set()

    async def _watch(self) -> None:
        """Follow until the server ends the watch. The version is kept with each event, so a broken watch loses nothing."""
        told = False
        async with aclosing(
            self._kube.watch(
                self.resource,
                self._version,
                namespace=self._namespace,
                labels=self._labels,
                fields=self._fields,
                read=self._readable,
            )
        ) as events:
            async for change, item in events:
                told = True
                self._backoff.succeeded()
                self._version = item["metadata"]["resourceVersion"]
                if change is WatchEventType.DELETED:
                    self._put(key_of(item), None)
                elif change is not WatchEventType.BOOKMARK and not self._has(item):
                    self._put(key_of(item), self._kept(item))
        if not told:
            await asyncio.sleep(_PAUSE_S)

    def _has(self, item: Object) -> bool:
        """Is it known in this very version, as after `learn`? Then `keep` need not be called for it."""
        known = self._objects.get(key_of(item))
        return known is not None and _version(known) == _version(item)

    def _put(self, key: Key, item: Object | None) -> None:
        before = self._objects.pop(key, None)
        if item is not None:
            self._objects[key] = item
        if before is None and item is None:
            return
        if before is not None and item is not None and _version(before) == _version(item):
            return
        for subscriber in list(self._subscribers):
            self._tell(subscriber, key, before, item)

    def _tell(self, subscriber: Subscriber, key: Key, before: Object | None, after: Object | None) -> None:
        name = (*key, getattr(subscriber, "__qualname__", ""))
        if self._missed and (missed := self._missed.get((subscriber, key))) is not None:
            if after is not None and self._untold.holds(name):
                return  # the timer tells the object as it will be then
            missed[1].cancel()
            del self._missed[subscriber, key]
            if after is not None:
                before = missed[0]
        try:
            subscriber(Changed(key, before, after))
        except Exception as error:
            self._untold.failed(name, error)
            if after is not None:
                again = asyncio.get_running_loop().call_later(
                    max(0.0, self._untold.left_s(name)), self._tell_again, subscriber, key
                )
                self._missed[subscriber, key] = before, again
        else:
            self._untold.succeeded(name)

    def _tell_again(self, subscriber: Subscriber, key: Key) -> None:
        item = self._objects.get(key)
        if item is not None and subscriber in self._subscribers:
            self._tell(subscriber, key, None, item)  # the object before is that of the first failure

    def _listed(self, text: Text) -> Object:
        item = self._readable(text)
        kept = self._kept(item)
        return {"metadata": item["metadata"], _UNREADABLE: True} if kept is None else kept

    def _readable(self, text: Text) -> Object:
        """The object, or no more than its metadata where it cannot be read."""
        try:
            return self._read(text)
        except Exception as error:
            metadata = read_metadata(text)
            self._unread.failed(key_of({"metadata": metadata}), error)
            return {"metadata": metadata, _UNREADABLE: True}

    def _kept(self, item: Object) -> Object | None:
        """What is held of the object. Where it cannot be read, what was known of it; None where nothing was."""
        key = key_of(item)
        if _UNREADABLE in item:
            return self._objects.get(key)
        try:
            return self._keep(item)
        except Exception as error:
            self._unread.failed(key, error)
            return self._objects.get(key)


def _is_later(known: Object, item: Object) -> bool:
    """Is `known` of a later version than `item`, or another object of its name?

    A later version is a larger decimal number (Kubernetes API concepts, "Resource versions"). Versions that are no numbers
    have no order: none counts as later.
    """
    uid = known["metadata"].get("uid")
    if uid is not None and uid != item["metadata"].get("uid", uid):
        return True
    one, other = _version(known), _version(item)
    return one.isdecimal() and other.isdecimal() and int(one) > int(other)


def _version(item: Object) -> str:
    version: str = item["metadata"]["resourceVersion"]
    return version
