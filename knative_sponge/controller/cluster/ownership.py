"""Which pods a Revision vouches for, and with which settings: only what owners prove counts, never what a pod says of itself.

Whoever may write pods in a namespace can give one any label, annotation and image, and may change annotations of one that
runs. So a pod is a Revision's where each owner names the next by uid, and the next is there:

    pod ─► ReplicaSet ─► Deployment ─► Revision, which the pod's label names

and its queue-proxy container has our image. Its settings are the Revision's, as far as the administrator lets its namespace
have them (`limits`).

What that does not prove: somebody who may write pods can copy a ReplicaSet's uid into a pod of his own. Kubernetes' ReplicaSet
controller then counts that pod as one of its own, and deletes what is too much; where the labels do not fit, it takes the uid
off again. So there are no more such pods than the Revision has replicas but for seconds, and they claim in the share of their
own namespace. Deployments and ReplicaSets made by hand with a real owner's uid fare the same with the Deployment controller.
Annotations of a Revision may be changed after its creation; the share and the limits of its namespace hold all the same.

With how many cores the webhook admitted a pod is said by what only the webhook can make (`control_token`), not by the pod.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import msgspec

from knative_sponge.controller.annotations import (
    OWNER_UID_LABEL,
    REVISION_LABEL,
    SERVICE_LABEL,
    read_settings,
    sponge_annotations,
)
from knative_sponge.controller.cluster.limits import NO_LIMITS
from knative_sponge.controller.cluster.namespace_limits import NamespaceLimits
from knative_sponge.controller.cluster.pod import PROXY_CONTAINER, control_digest, control_reference
from knative_sponge.controller.kube.api_json import Text
from knative_sponge.controller.kube.informer import Changed, Informer
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.controller.quarantine import text
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import INTERNAL, ServingSettings

_log: Final = logging.getLogger(__name__)

ALL: Final = ("", "")
"""Told in place of a revision where the pods of every one may have changed."""


@dataclass(frozen=True, slots=True)
class Owned:
    """What a pod's Revision says of it. settings: as far as they count. service: of the Revision; empty without one.
    owner: uid of its Configuration; empty without one. head_room: cores that the pod may be given ahead of need. admitted:
    cores with which a pod was admitted that carried what this one carries; 0 where that proves nothing."""

    settings: ServingSettings
    service: str = ""
    owner: str = ""
    head_room: float = math.inf
    admitted: float = 0.0


Proven = Callable[[str, str, str], float]
"""The cores that namespace, reference and digest of a pod's control token prove (`KeyRing.admitted`); 0 is none."""


def nothing_proven(_namespace: str, _reference: str, _digest: str) -> float:
    """Without any key."""
    return 0.0


@dataclass(frozen=True, slots=True)
class _Known:
    """The settings of one Revision in one version; None where they cannot be read."""

    version: tuple[str, str]
    settings: ServingSettings | None


class Ownership:
    """Answers from informers; each of them has to keep `kept_of_owner` at least of what it watches.

    limits: None bounds nothing. images: of our queue-proxy; any tag and digest of these is ours. proven: see `Proven`.
    """

    def __init__(
        self,
        revisions: Informer,
        deployments: Informer,
        replica_sets: Informer,
        limits: NamespaceLimits | None,
        *,
        images: Iterable[str],
        proven: Proven = nothing_proven,
    ) -> None:
        self._revisions = revisions
        self._deployments = deployments
        self._replica_sets = replica_sets
        self._repositories = frozenset(map(repository, images))
        self._proven = proven
        self._limits = limits
        self._known: dict[Key, _Known] = {}
        self._subscribers: list[Callable[[Key], None]] = []
        revisions.subscribe(self._revision_changed)
        deployments.subscribe(self._owner_changed)
        replica_sets.subscribe(self._owner_changed)
        self._forget_limits = None if limits is None else limits.subscribe(self.all_changed)

    def close(self) -> None:
        """Follow the limits no longer: they outlive this object."""
        if self._forget_limits is not None:
            self._forget_limits()
            self._forget_limits = None

    def subscribe(self, subscriber: Callable[[Key], None]) -> None:
        """Tell `subscriber` each revision of whose pods another answer may be due now, or ALL."""
        self._subscribers.append(subscriber)

    def all_changed(self) -> None:
        """Tell that other answers may be due for any pod, as when other keys are known."""
        self._tell(ALL)

    @property
    def faults(self) -> Mapping[str, str]:
        """What is wrong with entries of the limits that cannot be read."""
        return {} if self._limits is None else self._limits.faults

    def owned(self, pod: Object) -> Owned | None:
        """What the Revision of this pod (`kept_fields`) says of it; None where none vouches for it, or not readably."""
        revision = self.revision_of(pod)
        if revision is None or not self._has_our_image(pod):
            return None
        metadata = revision["metadata"]
        key = metadata["namespace"], metadata["name"]
        settings = self._settings(key, metadata)
        if settings is None:
            return None
        limits = NO_LIMITS if self._limits is None else self._limits.of(key[0])
        head_room = math.inf if limits.head_room is None else limits.head_room
        labels = metadata.get("labels") or {}
        service, owner = labels.get(SERVICE_LABEL) or "", labels.get(OWNER_UID_LABEL) or ""
        admitted = self._proven(key[0], control_reference(pod), control_digest(pod))
        return Owned(limits.bounded(settings), service, owner, head_room, admitted)

    def revision_of(self, pod: Object) -> Object | None:
        """The Revision that vouches for a pod; None where none does."""
        metadata = pod["metadata"]
        namespace = metadata["namespace"]
        replica_set = _owner(metadata, namespace, "apps", "ReplicaSet", self._replica_sets)
        deployment = replica_set and _owner(replica_set["metadata"], namespace, "apps", "Deployment", self._deployments)
        revision = deployment and _owner(
            deployment["metadata"], namespace, "serving.knative.dev", "Revision", self._revisions
        )
        if revision and revision["metadata"]["name"] == (metadata.get("labels") or {}).get(REVISION_LABEL):
            return revision
        return None

    def _has_our_image(self, pod: Object) -> bool:
        proxies = [one for one in pod["spec"]["containers"] if one["name"] == PROXY_CONTAINER]
        return any(repository(one.get("image") or "") in self._repositories for one in proxies)

    def _settings(self, key: Key, metadata: Object) -> ServingSettings | None:
        version = metadata.get("uid") or "", metadata["resourceVersion"]
        known = self._known.get(key)
        if known is None or known.version != version:
            known = self._known[key] = _Known(version, _read(metadata.get("annotations") or {}))
        return known.settings

    def _revision_changed(self, changed: Changed[Object]) -> None:
        if changed.after is None:
            self._known.pop(changed.key, None)
        if _told_of_revision(changed.before) != _told_of_revision(changed.after):
            self._tell(changed.key)

    def _owner_changed(self, changed: Changed[Object]) -> None:
        """A Deployment or ReplicaSet has the label of its Revision."""
        if _identity(changed.before) != _identity(changed.after):
            for one in (changed.before, changed.after):
                if one is not None and (name := (one["metadata"].get("labels") or {}).get(REVISION_LABEL)):
                    self._tell((changed.key[0], name))

    def _tell(self, key: Key) -> None:
        for subscriber in self._subscribers:
            subscriber(key)


class _Owner(TypedDict, total=False):
    metadata: dict[str, Any]


_OWNER: Final = msgspec.json.Decoder(_Owner)


def read_owner(text: Text) -> Object:
    """A ReplicaSet without its pod template. Raises ValueError for what is no JSON object."""
    return dict(_OWNER.decode(text))


def kept_of_owner(item: Object) -> Object:
    """Of a ReplicaSet: what proves whose it is."""
    metadata = item["metadata"]
    names = ("name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences")
    return {"metadata": {name: metadata[name] for name in names if name in metadata}}


def repository(image: str) -> str:
    """An image without its tag and digest."""
    reference = image.partition("@")[0]
    path, slash, last = reference.rpartition("/")
    return path + slash + last.partition(":")[0]


def _owner(metadata: Object, namespace: str, group: str, kind: str, among: Informer) -> Object | None:
    """The controller that the metadata names, if it is of this kind and there."""
    for one in metadata.get("ownerReferences") or ():
        if one.get("controller") is True:
            if one.get("kind") != kind or str(one.get("apiVersion")).partition("/")[0] != group:
                return None
            found = among.get((namespace, one.get("name") or ""))
            return found if found is not None and found["metadata"].get("uid") == (one.get("uid") or None) else None
    return None


def _identity(item: Object | None) -> object:
    if item is None:
        return None
    metadata = item["metadata"]
    return metadata.get("uid"), metadata.get("ownerReferences"), (metadata.get("labels") or {}).get(REVISION_LABEL)


def _told_of_revision(item: Object | None) -> object:
    if item is None:
        return None
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    return metadata.get("uid"), metadata.get("annotations"), labels.get(SERVICE_LABEL), labels.get(OWNER_UID_LABEL)


def _read(annotations: Mapping[str, str]) -> ServingSettings | None:
    own = {key: value for key, value in sponge_annotations(annotations).items() if key not in INTERNAL}
    try:
        return read_settings(own)
    except SettingError as error:
        _log.debug("settings of a revision: %s", text(error))
        return None
