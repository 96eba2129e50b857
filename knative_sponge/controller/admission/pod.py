"""What the webhook changes in a revision's pod: our proxy, the start size, in-place resize. Pure: no I/O, no clock.

No pod is ever refused. A pod that our proxy cannot serve keeps the stock proxy, and an annotation on it says why.

Kubernetes fixes a pod's QoS class when it is created, and a resize may not change it. A pod without any resources would be
BestEffort and could never be resized; the CPU request that is written here makes it Burstable. A Guaranteed pod stays
Guaranteed with `cpu-limit: equal`, because request and limit are the same; `burst` makes it Burstable. Memory is not changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from knative_sponge.controller.admission.admission_review import Object, Verdict, member
from knative_sponge.controller.annotations import OWNER_UID_LABEL, SERVICE_LABEL, SLO_ANNOTATION, read_settings
from knative_sponge.controller.cluster.control_token import DIGEST, PLAIN, REFERENCE, Control
from knative_sponge.controller.cluster.limits import CONFIG, NO_LIMITS, Bound, Limits
from knative_sponge.controller.cluster.pod import PROXY_CONTAINER, USER_PORT, is_serving
from knative_sponge.controller.profiles.profile import ImageProfile, key_of
from knative_sponge.core.quantity import format_cores, parse_quantity
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import EFFECTIVE, PROXY, CpuLimit, ServingSettings

_PROFILE: Final = "SPONGE_PROFILE"
_HOST_IPS: Final = "SPONGE_HOST_IPS"
_UNREAD: Final = Limits(min_cores=ServingSettings().min_cores)
"""While it is not known what an administrator allows, a pod starts with what it requests, which scheduler and quotas allow any
pod. The leader gives it its `min-cores` as soon as it knows that it may. A pod that starts with more than is allowed could not
be put right afterwards: what it starts with is a floor of its namespace's share."""
_DEFAULT_CORES: Final = 1.0
"""Start size of a container that has neither a request nor a limit of CPU."""


class _KeepStock(Exception):
    """This pod keeps Knative's own proxy. The text says why, for its owner."""


Mint = Callable[[str, float], Control | None]
"""What a new pod of a namespace that starts with so many cores carries of its control token (`control_keys.ControlKeys.mint`);
None where there is no key."""

Bounds = Callable[[str], Limits | None]
"""What the administrator lets a namespace ask for (`namespace_limits.NamespaceLimits.known_of`); None is not known yet."""

Room = Callable[[Object], float | None]
"""Cores that a pod may request at its start, as far as nodes have them (`cluster.node.start_room`); None is not known."""


def no_profile(_key: str) -> ImageProfile | None:
    """A lookup without profiles."""
    return None


def unbounded(_namespace: str) -> Limits | None:
    """Without limits."""
    return NO_LIMITS


def unlimited(_pod: Object) -> float | None:
    """Room on nodes of unlimited size."""
    return math.inf


def review_pod(
    pod: Object,
    image: str,
    mint: Mint,
    lookup: Callable[[str], ImageProfile | None] = no_profile,
    namespace: str = "",
    room: Room = unlimited,
    bounds: Bounds = unbounded,
) -> Verdict:
    """The pod as it should be created (outcome `sponge` or `stock`), or unchanged (`untouched`).

    image: of our queue-proxy. lookup: the profile of an image in a Service, by `key_of`; it must not wait. namespace:
    of the pod, which a new pod's own metadata need not name. room: bounds a learned size, but not below what the pod requests;
    a learned size is not used where the room is not known. For the nodes on which it was learned may be gone, and a pod that
    fits on no node never starts. bounds: of the start size; `effective` shows what counts within them. The proxy is told what
    the revision says: its pod outlives the limits of today, and the leader bounds what it is given.

    The answer tells a stranger nothing but the limits of a namespace: a profile is found only by the Configuration's uid, which
    is known to who may read it, and of the control token there is only the digest. Where there is no control key the pod starts
    all the same, with closed control routes, and `effective` says so.

    Reviewing the result again changes nothing but the control token, of which each review makes another: what was there before
    may be the copy of another pod's.
    """
    annotations: Mapping[str, str] = member(member(pod, "metadata"), "annotations")
    if not annotations.get(SLO_ANNOTATION) or not any(one.get("name") == PROXY_CONTAINER for one in _containers(pod)):
        return Verdict("untouched")
    effective: dict[str, str] = {}
    changed = pod
    try:
        settings = read_settings(annotations)
        limits = bounds(namespace)
        counting = (_UNREAD if limits is None else limits).bounded(settings)
        effective = counting.effective()
        changed, more = _with_sponge(pod, settings, counting, image, mint, lookup, namespace, room)
        effective |= more | _shown_limits(limits, settings)
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
    counting: ServingSettings,
    image: str,
    mint: Mint,
    lookup: Callable[[str], ImageProfile | None],
    namespace: str,
    room: Room,
) -> tuple[Object, dict[str, str]]:
    """The pod with our proxy; and what `effective` says of it: `start`, the source of its start size, and `control: none` where
    nobody can resize it. counting: the settings as far as they count."""
    containers = _containers(pod)
    proxy = next(one for one in containers if one.get("name") == PROXY_CONTAINER)
    if any(one.get("name") == "QUEUE_SERVING_PORT" and one.get("value") == "8013" for one in proxy.get("env") or ()):
        raise _KeepStock("the user port is named h2c, and HTTP/2 is not served")
    serving = next((one for one in containers if is_serving(one)), None)
    if serving is None:
        raise _KeepStock(f"no container has a port named {USER_PORT}")
    profile = _profile(pod, serving, lookup, namespace)
    learned = None if profile is None else profile.cores
    requested = _requested(serving)
    if learned is not None:
        most = room(pod)
        learned = None if most is None else min(learned, max(most, requested))
    cores = _within(requested if learned is None else learned, counting)
    env = settings.to_env() | {"SPONGE_CORES": format_cores(cores)}
    if profile is not None:
        env[_PROFILE] = profile.model
    control = mint(namespace, cores)
    changed = {
        id(serving): _sized(serving, counting, cores),
        id(proxy): _exchanged(proxy, image, env | _control_env(control)),
    }
    after = {**pod, "spec": {**pod["spec"], "containers": [changed.get(id(one), one) for one in containers]}}
    shown = {"start": "request" if learned is None else "learned"}
    return after, shown if control is not None else shown | {"control": "none"}


def _shown_limits(limits: Limits | None, settings: ServingSettings) -> dict[str, str]:
    """What `effective` says of the limits: nothing where they bound nothing."""
    if limits is None:
        return {"limits": f"{CONFIG} not read yet"}
    bounded = limits.bounds_on(settings)
    return {"limits": f"{CONFIG}: " + ", ".join(map(_told, bounded))} if bounded else {}


def _told(bound: Bound) -> str:
    return f"{bound.name} {bound.said or 'none'} counts as {bound.counts}"


def _profile(
    pod: Object, serving: Object, lookup: Callable[[str], ImageProfile | None], namespace: str
) -> ImageProfile | None:
    labels = member(member(pod, "metadata"), "labels")
    owner = str(labels.get(OWNER_UID_LABEL) or "")
    if not owner:
        return None
    return lookup(key_of(str(serving.get("image")), namespace, str(labels.get(SERVICE_LABEL, "")), owner))


def _control_env(control: Control | None) -> dict[str, str]:
    return {} if control is None else {DIGEST: control.digest, REFERENCE: control.reference}


def _exchanged(proxy: Object, image: str, env: Mapping[str, str]) -> Object:
    """The queue-proxy container with our image and variables. Variables that it has already keep their place, but for those of
    a control token that is not from this review."""
    new: dict[str, Object] = {name: {"name": name, "value": value} for name, value in env.items()}
    # The kubelet's calls come from the node's addresses (`/wait-for-drain`).
    new[_HOST_IPS] = {"name": _HOST_IPS, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIPs"}}}
    stale = {PLAIN, DIGEST, REFERENCE} - env.keys()
    present: Sequence[Object] = [one for one in proxy.get("env") or () if one.get("name") not in stale]
    names = {one.get("name") for one in present}
    # A variable is replaced with all its fields: one with both `value` and `valueFrom` would be refused.
    kept = [new.get(one.get("name", ""), one) for one in present]
    added = [one for name, one in new.items() if name not in names]
    changed = {**proxy, "env": [*kept, *added]}
    if proxy.get("image") != image:
        # The present policy is the default of the stock image, so it is replaced with the image. Where our image is in place
        # already, somebody else chose the policy: plugins such as AlwaysPullImages run between two reviews of a pod.
        changed |= {"image": image, "imagePullPolicy": pull_policy(image)}
    return changed


def _requested(container: Object) -> float:
    """The container's own request, else its limit, else one core. Raises _KeepStock."""
    resources = member(container, "resources")
    text = member(resources, "requests").get("cpu", member(resources, "limits").get("cpu"))
    return _DEFAULT_CORES if text is None else _quantity(text)


def _within(cores: float, settings: ServingSettings) -> float:
    """The size moved into the bounds of the settings."""
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
    """CPU is always resized without a restart. A policy of memory that is there stays: a JVM's heap may need a restart."""
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
