"""What the webhook does to a revision's pod: our proxy, the start size, in-place resize. Pure: no I/O, no clock.

Whatever the pod carries, it is never refused: what cannot be served by our proxy keeps the stock one, and says why.

QoS classes (Kubernetes fixes a pod's class when it is created, and a resize may not change it): a pod without any
resources would be BestEffort and could never be resized, so the CPU request that is written here makes it Burstable. A
Guaranteed pod stays Guaranteed with `cpu-limit: equal`, since request and limit are written as one; `burst` makes it
Burstable at birth. Memory is never touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from knative_sponge.controller.admission.admission_review import Object, Verdict, member
from knative_sponge.controller.annotations import SERVICE_LABEL, SLO_ANNOTATION, read_settings
from knative_sponge.controller.profiles.profile import Known, key_of
from knative_sponge.core.quantity import format_cores, parse_quantity
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import EFFECTIVE, PROXY, CpuLimit, ServingSettings

_PROXY_CONTAINER: Final = "queue-proxy"
_USER_PORT: Final = "user-port"
_TOKEN: Final = "SPONGE_CONTROL_TOKEN"
_PROFILE: Final = "SPONGE_PROFILE"
_DEFAULT_CORES: Final = 1.0
"""Start size of a container that asks for no CPU and has no limit."""


class _KeepStock(Exception):
    """This pod runs Knative's own proxy; the text says why, for its owner."""


Room = Callable[[Object], float | None]
"""Cores that a pod may ask for at its start, as far as nodes go (`node.start_room`); None is not known."""


def nothing_known(_key: str) -> Known | None:
    """The lookup before anything was learned."""
    return None


def endless(_pod: Object) -> float | None:
    """Nodes of any size."""
    return math.inf


def review_pod(
    pod: Object,
    image: str,
    new_token: Callable[[], str],
    lookup: Callable[[str], Known | None] = nothing_known,
    namespace: str = "",
    room: Room = endless,
) -> Verdict:
    """The pod as it should be created (outcome `sponge` or `stock`), or unchanged (`untouched`).

    image: of our queue-proxy. new_token: makes the control token of a pod that has none. lookup: what earlier pods of an
    image in this Service have learned, by `key_of(image, namespace, service)`; it must not wait. namespace: of the pod,
    which a new pod's own metadata need not name. room: a learned size is cut to it, but not below what the pod requests, and
    left aside where it is not known: the nodes on which it was learned may be gone, and a pod that no node has room for never
    starts. Reviewing the result again changes nothing.
    """
    annotations: Mapping[str, str] = member(member(pod, "metadata"), "annotations")
    if not annotations.get(SLO_ANNOTATION) or not any(one.get("name") == _PROXY_CONTAINER for one in _containers(pod)):
        return Verdict("untouched")
    effective: dict[str, str] = {}
    changed = pod
    try:
        settings = read_settings(annotations)
        effective = settings.effective()
        changed, effective["start"] = _with_sponge(pod, settings, image, new_token, lookup, namespace, room)
        outcome = "sponge"
    except (_KeepStock, SettingError) as error:
        outcome = "stock"
        effective["why"] = str(error)
    effective["proxy"] = outcome
    shown = json.dumps(effective, ensure_ascii=False, separators=(",", ":"))
    annotations = {**annotations, EFFECTIVE: shown, PROXY: outcome}
    return Verdict(outcome, changed={**changed, "metadata": {**member(pod, "metadata"), "annotations": annotations}})


def pull_policy(image: str) -> str:
    """The imagePullPolicy that the API server gives an image without one."""
    reference, _, digest = image.partition("@")
    tag = reference.rpartition("/")[2].partition(":")[2] or ("" if digest else "latest")
    return "Always" if tag == "latest" else "IfNotPresent"


def _with_sponge(
    pod: Object,
    settings: ServingSettings,
    image: str,
    new_token: Callable[[], str],
    lookup: Callable[[str], Known | None],
    namespace: str,
    room: Room,
) -> tuple[Object, str]:
    """The pod, and where its start size comes from: `learned` or `request`."""
    containers = _containers(pod)
    proxy = next(one for one in containers if one.get("name") == _PROXY_CONTAINER)
    if any(one.get("name") == "QUEUE_SERVING_PORT" and one.get("value") == "8013" for one in proxy.get("env") or ()):
        raise _KeepStock("the user port is named h2c, and HTTP/2 is not served")
    serving = next((one for one in containers if _is_serving(one)), None)
    if serving is None:
        raise _KeepStock(f"no container has a port named {_USER_PORT}")
    service = str(member(member(pod, "metadata"), "labels").get(SERVICE_LABEL, ""))
    known = lookup(key_of(str(serving.get("image")), namespace, service))
    learned = None if known is None else known.cores
    requested = _requested(serving)
    if learned is not None:
        most = room(pod)
        learned = None if most is None else min(learned, max(most, requested))
    cores = _within(requested if learned is None else learned, settings)
    env = settings.to_env() | {"SPONGE_CORES": format_cores(cores)}
    if known is not None:
        env[_PROFILE] = known.model
    changed = {
        id(serving): _sized(serving, settings, cores),
        id(proxy): _exchanged(proxy, image, env, new_token),
    }
    after = {**pod, "spec": {**pod["spec"], "containers": [changed.get(id(one), one) for one in containers]}}
    return after, "request" if learned is None else "learned"


def _is_serving(container: Object) -> bool:
    return any(port.get("name") == _USER_PORT for port in container.get("ports") or ())


def _exchanged(proxy: Object, image: str, env: Mapping[str, str], new_token: Callable[[], str]) -> Object:
    """The queue-proxy container with our image and variables; those that are there already keep their place."""
    present: Sequence[Mapping[str, Any]] = proxy.get("env") or ()
    if not any(one.get("name") == _TOKEN and (one.get("value") or one.get("valueFrom")) for one in present):
        env = {**env, _TOKEN: new_token()}
    names = {one.get("name") for one in present}
    # As a whole: a variable with both `value` and `valueFrom` would be refused.
    kept = [{"name": one["name"], "value": env[one["name"]]} if one.get("name") in env else one for one in present]
    added = [{"name": name, "value": value} for name, value in env.items() if name not in names]
    changed = {**proxy, "env": [*kept, *added]}
    if proxy.get("image") != image:
        # The present policy was defaulted from the stock image. With our image in place it is somebody's decision:
        # admission plugins such as AlwaysPullImages run between two reviews of a pod.
        changed |= {"image": image, "imagePullPolicy": pull_policy(image)}
    return changed


def _requested(container: Object) -> float:
    """The container's own request, else its limit, else one core."""
    resources = member(container, "resources")
    text = member(resources, "requests").get("cpu", member(resources, "limits").get("cpu"))
    return _DEFAULT_CORES if text is None else _quantity(text)


def _within(cores: float, settings: ServingSettings) -> float:
    """The nearest size within the bounds that the user set."""
    most = cores if settings.max_cores is None else settings.max_cores
    return max(settings.min_cores, min(cores, most))


def _sized(container: Object, settings: ServingSettings, cores: float) -> Object:
    resources = member(container, "resources")
    requests, limits = member(resources, "requests"), member(resources, "limits")
    limit: float | None = cores
    if settings.cpu_limit is CpuLimit.BURST:
        limit = settings.max_cores
        if limit is None and "cpu" in limits:
            limit = max(cores, _quantity(limits["cpu"]))  # a request above its limit would be refused
    resources = {**resources, "requests": _with_cpu(requests, cores)}
    if limit is not None:
        resources["limits"] = _with_cpu(limits, limit)
    return {**container, "resources": resources, "resizePolicy": _resize_policy(container.get("resizePolicy") or ())}


def _with_cpu(amounts: Mapping[str, Any], cores: float) -> Mapping[str, Any]:
    text = format_cores(cores)
    if "cpu" in amounts and format_cores(_quantity(amounts["cpu"])) == text:
        return amounts
    return {**amounts, "cpu": text}


def _resize_policy(present: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    """CPU is resized without a restart in any case. For memory another webhook may know better (a JVM's heap)."""
    policies = {one.get("resourceName"): one for one in present}
    memory = policies.get("memory", {"resourceName": "memory", "restartPolicy": "NotRequired"})
    wanted = {"cpu": {"resourceName": "cpu", "restartPolicy": "NotRequired"}, "memory": memory}
    return list((policies | wanted).values())


def _quantity(text: object) -> float:
    try:
        return parse_quantity(str(text))
    except ValueError as error:
        raise _KeepStock(str(error)) from error


def _containers(pod: Object) -> Sequence[Mapping[str, Any]]:
    containers: Sequence[Mapping[str, Any]] = member(pod, "spec").get("containers") or ()
    return containers
