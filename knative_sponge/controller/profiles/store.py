"""Profiles that outlive their pods: a ConfigMap with one line per image. Every replica reads it, the leader writes it.

Nobody waits for it: a lookup is in memory, and without the ConfigMap pods start without a profile.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from knative_sponge.controller.kube.client import Patch
from knative_sponge.controller.kube.resource import PROFILES, Object, Resource
from knative_sponge.controller.profiles.profile import (
    ImageProfile,
    from_text,
    image_profile,
    namespace_of,
    to_text,
    worth_storing,
)
from knative_sponge.controller.quarantine import Failures
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.errors import KubeError, KubeNotFound, ProfileError
from knative_sponge.wire.demand import DemandLine

MOST_PROFILES: Final = 100
MOST_BYTES: Final = 256 * 1024
"""Of all keys and values; the API server accepts 1 MiB."""
READ_S: Final = 10.0
WRITE_S: Final = 30.0
_FADE: Final = 0.1
"""Stored cores follow a larger size at once, and a smaller one by this share each time: a pod is started because load comes."""
_CROWDED_S: Final = 600.0
"""An image for which the ConfigMap had no room is not considered again for so long."""
_ENOUGH: Final = 100
"""A model of so many measurements may replace any other."""

NAME: Final = PROFILES.names[0]

log = logging.getLogger(__name__)

Lookup = Callable[[str], ImageProfile | None]
"""The profile of an image, by its key (`controller.profiles.profile.key_of`)."""


class ConfigReader(Protocol):
    """The call to the API server that every replica needs. Raises KubeError."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...


class ConfigKeeper(ConfigReader, Protocol):
    """The calls that the leader needs. `kube.client.Kube` has all of them."""

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object: ...

    async def patch(
        self, resource: Resource, name: str, body: Object, namespace: str | None = None, *, kind: Patch = Patch.MERGE
    ) -> Object: ...


class ProfileStore:
    """The profiles as last read."""

    def __init__(self, kube: ConfigReader, namespace: str, failures: Failures | None = None) -> None:
        """namespace: the controller's own. failures: where entries that fail are reported."""
        self._steps = (failures or Failures()).of("profiles")
        self._kube = kube
        self._namespace = namespace
        self._texts: dict[str, str] = {}
        self._known: dict[str, ImageProfile] = {}
        self.version: str | None = None
        """The ConfigMap's resourceVersion; None when there is none."""

    def get(self, key: str) -> ImageProfile | None:
        """The profile of the image with this key; never waits."""
        return self._known.get(key)

    @property
    def texts(self) -> Mapping[str, str]:
        """All stored texts by key, readable or not."""
        return self._texts

    async def run(self) -> None:
        """Read every READ_S until cancelled. A call that fails is tried again; the first of several failures is logged."""
        failing = False
        while True:
            try:
                await self.read()
                failing = False
            except KubeError as error:
                if not failing:
                    log.warning("profiles cannot be read, new pods start with the last ones: %s", error)
                failing = True
            except Exception as error:
                self._steps.failed(NAME, error)
            await asyncio.sleep(READ_S)

    async def read(self) -> None:
        """Read now. Raises KubeError."""
        try:
            found = await self._kube.get(PROFILES, NAME, self._namespace)
        except KubeNotFound:
            found = None
        self.take(found)

    def take(self, config_map: Object | None) -> None:
        """Take over another version of the ConfigMap. An entry that cannot be read is ignored, and logged once."""
        data: Mapping[str, str] = {} if config_map is None else config_map.get("data") or {}
        self.version = None if config_map is None else config_map["metadata"]["resourceVersion"]
        before, before_texts = self._known, self._texts
        self._known, self._texts = {}, dict(data)
        for key, text in data.items():
            if before_texts.get(key) == text:
                if key in before:
                    self._known[key] = before[key]
                continue
            try:
                self._known[key] = from_text(text)
            except ProfileError as error:
                log.warning("profile %s is passed over: %s", key, error)
            except Exception as error:
                self._steps.failed(key, error)


class ProfileKeeper:
    """Writes what pods have learned; leader only.

    A write that failed is tried again with the next flush, against what is stored by then: nothing is lost.
    """

    def __init__(
        self, kube: ConfigKeeper, store: ProfileStore, namespace: str, failures: Failures | None = None
    ) -> None:
        """kube: fenced by the lease. namespace: the controller's own. failures: where models that fail are reported."""
        self._steps = (failures or Failures()).of("learned profiles")
        self._kube = kube
        self._store = store
        self._namespace = namespace
        self._learned: dict[str, tuple[Mapping[str, Any], float | None]] = {}
        self._flushed_s: float | None = None
        self._used: dict[str, float] = {}
        """When a pod of the image was last seen, Unix seconds."""
        self._crowded: dict[str, float] = {}
        """When the ConfigMap had no room for the image, Unix seconds."""

    def lacks(self, key: str, line: DemandLine, now: float) -> bool:
        """Is the model of this pod's proxy worth fetching, by what its demand line says of it? To fetch it and compare costs a
        thousand times as much. The image counts as seen. now: Unix seconds."""
        self._used[key] = now
        if 0 <= now - self._crowded.get(key, -math.inf) < _CROWDED_S:
            return False
        old = self._store.get(key)
        if old is None or line.params is None:
            return True
        cores = min(line.want, line.cores) if line.rate > 0 else None
        try:
            params = LatencyParams(*line.params)
            cost = params if line.cost is None else LatencyParams(*line.cost)
        except ValueError:
            return False
        new = ImageProfile("", _blended(old, cores), now // 60 * 60, params, cost, line.samples)
        return new.samples >= min(old.samples, _ENOUGH) and worth_storing(old, new)

    def learn(self, key: str, model: Mapping[str, Any], cores: float | None) -> None:
        """Keep the model (`core.latency.profile.to_json`) of pods of the image with this key, until the next flush. cores: a
        size that sufficed for them; None is not known.

        `flush` does not replace a model of many measurements by one of few.
        """
        _, before = self._learned.get(key, (None, None))
        sizes = [size for size in (before, cores) if size is not None]
        self._learned[key] = model, max(sizes, default=None)

    async def flush(self, now: float) -> None:
        """Write the profiles worth it, at most every WRITE_S; a call that failed is logged. now: Unix seconds."""
        if not self._learned or (self._flushed_s is not None and 0 <= now - self._flushed_s < WRITE_S):
            return
        self._flushed_s = now
        learned, self._learned = self._learned, {}
        try:
            await self._store.read()
            if changes := await self._changes(learned, now):
                self._store.take(await self._write(changes))
        except KubeError as error:
            self._learned = learned | self._learned
            log.warning("profiles: %s; trying again", error)

    async def _changes(
        self, learned: Mapping[str, tuple[Mapping[str, Any], float | None]], now: float
    ) -> dict[str, str | None]:
        """Texts to write by key; None removes one.

        Where there is no room for all images in use, the stored ones stay: else images would replace each other for ever. That
        holds within a namespace. Each namespace has its share of the room, whatever others store.
        """
        texts: dict[str, str] = {}
        stored = self._store.texts
        self._used = {key: at_s for key, at_s in self._used.items() if key in stored}
        seen = {key: found.seen_s for key in stored if (found := self._store.get(key)) is not None} | self._used
        for key, (model, cores) in learned.items():
            seen[key] = now
            # Each takes a millisecond or two, and the loop that divides cores must not wait for all of them.
            await asyncio.sleep(0)
            try:
                text = self._text(key, model, cores, now)
            except ProfileError as error:
                log.warning("profile %s: %s", key, error)
            except Exception as error:
                self._steps.failed(key, error)
            else:
                if text is not None:
                    texts[key] = text
        worth = {key: (seen.get(key, 0.0), key in stored) for key in (*stored, *texts)}
        gone = _evicted({**stored, **texts}, worth) if texts else ()
        kept = {key: text for key, text in texts.items() if key not in gone}
        recent = {key: at_s for key, at_s in self._crowded.items() if now - at_s < _CROWDED_S}
        self._crowded = recent | {key: now for key in gone if key in texts}
        return kept | {key: None for key in gone if key in stored}

    def _text(self, key: str, model: Mapping[str, Any], cores: float | None, now: float) -> str | None:
        """What to store of a model; None where what is stored is as good. Raises ProfileError."""
        old = self._store.get(key)
        new = image_profile(model, _blended(old, cores), now)
        better = old is None or new.samples >= min(old.samples, _ENOUGH)
        return to_text(new) if better and worth_storing(old, new) else None

    async def _write(self, changes: Mapping[str, str | None]) -> Object:
        if self._store.version is not None:
            body = {"metadata": {"resourceVersion": self._store.version}, "data": dict(changes)}
            return await self._kube.patch(PROFILES, NAME, body, self._namespace)
        metadata = {
            "name": NAME,
            "namespace": self._namespace,
            "labels": {"app.kubernetes.io/part-of": "knative-sponge"},
        }
        data = {key: text for key, text in changes.items() if text is not None}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return await self._kube.create(PROFILES, body, self._namespace)


def _blended(old: ImageProfile | None, cores: float | None) -> float | None:
    if old is None or old.cores is None:
        return cores
    if cores is None:
        return old.cores
    return max(cores, round(old.cores + _FADE * (cores - old.cores), 3))


def _evicted(texts: Mapping[str, str], worth: Mapping[str, tuple[float, bool]]) -> list[str]:
    """Keys to remove so that the rest is within the bounds.

    The namespace with the most lines gives one up, and while there are too many bytes the one with the most bytes. Of its lines
    the least recently seen goes first, and among equals one that is not stored. An entry that cannot be read counts as never
    seen.
    """
    order: dict[str, list[str]] = defaultdict(list)
    for key in sorted(texts, key=lambda key: (worth[key], key), reverse=True):
        order[namespace_of(key)].append(key)  # the next to go comes last
    sizes = {key: len(key) + len(text.encode()) for key, text in texts.items()}
    lines = {namespace: len(keys) for namespace, keys in order.items()}
    bytes_ = {namespace: sum(sizes[key] for key in keys) for namespace, keys in order.items()}
    gone: list[str] = []
    while (crowded := sum(lines.values()) > MOST_PROFILES) or sum(bytes_.values()) > MOST_BYTES:
        used = lines if crowded else bytes_
        most = max(used.values())
        # Of namespaces with as much, the one whose next line is worth least.
        loser = min(
            (each for each, much in used.items() if much == most), key=lambda each: (worth[order[each][-1]], each)
        )
        key = order[loser].pop()
        lines[loser] -= 1
        bytes_[loser] -= sizes[key]
        gone.append(key)
    return gone
