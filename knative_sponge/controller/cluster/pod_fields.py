"""The fields of a pod that the informer decodes, and those that it holds: what `pod` and the other readers of pods use. Pure.

Environment, probes, volumes and managed fields are nine tenths of a pod, and a large cluster has thousands of pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import msgspec

from knative_sponge.controller.annotations import (
    OWNER_UID_LABEL,
    REVISION_LABEL,
    SERVICE_LABEL,
    SLO_ANNOTATION,
    sponge_annotations,
)
from knative_sponge.controller.cluster.control_token import DIGEST, PLAIN, REFERENCE
from knative_sponge.controller.cluster.pod import PROXY_CONTAINER, USER_PORT, is_serving
from knative_sponge.controller.kube.resource import Object
from knative_sponge.settings.serving import EFFECTIVE, PROXY

_METADATA: Final = ("name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp")
_LABELS: Final = (REVISION_LABEL, SERVICE_LABEL, OWNER_UID_LABEL)
_CONDITIONS: Final = ("Ready", "PodResizePending", "PodResizeInProgress")
_CONDITION: Final = ("type", "status", "reason", "message", "observedGeneration")
_OWNER: Final = ("apiVersion", "kind", "name", "uid", "controller")
_RESOURCES: Final = ("cpu", "memory")


class _Metadata(TypedDict, total=False):
    name: Any
    namespace: Any
    uid: Any
    resourceVersion: Any
    generation: Any
    ownerReferences: Any
    deletionTimestamp: Any
    labels: Any
    annotations: Any


class _Container(TypedDict, total=False):
    name: Any
    image: Any
    env: Any
    ports: Any
    resources: Any
    resizePolicy: Any
    restartPolicy: Any


class _Spec(TypedDict, total=False):
    nodeName: Any
    nodeSelector: Any
    tolerations: Any
    overhead: Any
    resources: Any
    containers: list[_Container]
    initContainers: list[_Container] | None


class _Pod(TypedDict, total=False):
    metadata: _Metadata
    spec: _Spec
    status: Any


_DECODER: Final = msgspec.json.Decoder(_Pod)


def read_pod(text: bytes | msgspec.Raw) -> Object:
    """The pod with the fields that anybody reads. Raises ValueError for what is no JSON object."""
    try:
        return dict(_DECODER.decode(text))
    except msgspec.ValidationError:
        # A pod of another shape is decoded as it is: its readers say what is wrong with it.
        return msgspec.json.decode(text, type=dict[str, Any])


def kept_fields(pod: Object) -> Object:
    """The pod with the fields that are held, each where it was. Doing it twice changes nothing. `pod` itself is not changed."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    kept = {
        "metadata": _part(metadata, *_METADATA)
        | {"labels": _part(metadata.get("labels"), *_LABELS), "annotations": _annotations(metadata.get("annotations"))}
        | _filled("ownerReferences", _controller(metadata.get("ownerReferences"))),
        "spec": _part(spec, "nodeName")
        | _filled("overhead", _part(spec.get("overhead"), *_RESOURCES))
        | _resources(spec)
        | {"containers": [_container(one) for one in spec["containers"]]}
        | _filled("initContainers", [_container(one) for one in spec.get("initContainers") or ()]),
        "status": _part(status, "phase", "podIP", "qosClass", "observedGeneration"),
    }
    conditions = [one for one in status.get("conditions") or () if one["type"] in _CONDITIONS]
    kept["status"] |= _filled("conditions", [_part(one, *_CONDITION) for one in conditions])
    for name in ("containerStatuses", "initContainerStatuses"):
        kept["status"] |= _filled(name, [_status(one) for one in status.get(name) or ()])
    return kept


def _controller(references: Sequence[Object] | None) -> list[Object]:
    """The owner that controls the pod. There is one at most."""
    return [_part(one, *_OWNER) for one in references or () if one.get("controller")]


def _annotations(annotations: Mapping[str, str] | None) -> Object:
    kept = sponge_annotations(annotations or {})
    if kept.get(PROXY) == "sponge" or SLO_ANNOTATION not in kept:
        kept.pop(EFFECTIVE, None)  # long, and read only for why a pod keeps the stock proxy
    return kept


def _container(container: Object) -> Object:
    kept = _part(container, "name", "restartPolicy") | _resources(container)
    if is_serving(container):
        kept |= {"ports": [{"name": USER_PORT}]} | _part(container, "image", "resizePolicy")
    if container["name"] == PROXY_CONTAINER:
        kept |= _part(container, "image")
        kept |= _filled("env", [one for one in container.get("env") or () if one["name"] in (PLAIN, REFERENCE, DIGEST)])
    return kept


def _status(status: Object) -> Object:
    allocated = _part(status.get("allocatedResources"), *_RESOURCES)
    return _part(status, "name") | _resources(status) | _filled("allocatedResources", allocated)


def _resources(holder: Object) -> Object:
    resources = holder.get("resources") or {}
    kinds = {kind: _part(resources.get(kind), *_RESOURCES) for kind in ("requests", "limits")}
    return _filled("resources", {kind: part for kind, part in kinds.items() if part})


def _part(item: Mapping[str, Any] | None, *names: str) -> Object:
    return {name: item[name] for name in names if name in item} if item else {}


def _filled(name: str, value: Object | list[Object] | str) -> Object:
    return {name: value} if value else {}
