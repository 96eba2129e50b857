"""A pod of a revision as a value: its sizes, where it runs, how its proxy is reached; and the patch that resizes it. Pure.

All functions give the same result for a pod as the API server has it and for its `pod_fields.kept_fields`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from knative_sponge.controller.annotations import OWNER_UID_LABEL, REVISION_LABEL, SERVICE_LABEL
from knative_sponge.controller.cluster.control_token import DIGEST, PLAIN, REFERENCE
from knative_sponge.controller.kube.resource import Key, Object
from knative_sponge.core.quantity import format_cores, parse_quantity
from knative_sponge.core.resizing.events import Seen
from knative_sponge.settings.serving import PROXY, CpuLimit, ServingSettings

PROXY_CONTAINER: Final = "queue-proxy"
USER_PORT: Final = "user-port"
_EDGE: Final = 0.001
"""Cores by which a limit stays above its request where equality would change the QoS class: one millicore."""
_ROUNDING: Final = 0.011
"""Cores: a request and a limit that differ by less are meant to be one size."""
_MEMORY_RESTARTS: Final = {"resourceName": "memory", "restartPolicy": "RestartContainer"}


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod of a revision. CPU in cores, memory in bytes; texts are '' and amounts None where the pod says nothing."""

    key: Key
    uid: str
    revision: str
    service: str
    owner: str
    """uid of the Configuration that its revision comes from."""
    node: str
    ip: str
    token: str = field(repr=False)
    """Bearer token of its proxy's control routes, where an older version has put it into the pod itself."""
    control: str
    """Which token its proxy asks for (`control_token.REFERENCE`)."""
    sponge: bool
    """Does it run our proxy?"""
    container: str
    """Name of the serving container, the one with a port named `user-port`."""
    image: str
    """Of the serving container, as spec names it."""
    request: float
    limit: float | None
    in_force: float | None
    """Size in status, comparable with `size`; None while it is not reported."""
    allocated: float | None
    """Request that the kubelet admitted."""
    memory_request: int | None
    memory_limit: int | None
    memory_in_force: int | None
    """As status has it, comparable with `memory`; None while it is not reported."""
    memory_restarts: bool
    """Does the container restart when its memory is resized?"""
    pending: str
    """'', Deferred or Infeasible."""
    progress: str
    """'', InProgress or Error."""
    message: str
    """Of the condition that `pending` or `progress` comes from."""
    generation: int
    observed_generation: int
    phase: str
    ready: bool
    terminating: bool
    others: float
    """Cores requested by the other containers that run all the time, and for the pod's sandbox (`spec.overhead`)."""
    settings: ServingSettings | None
    """As its Revision says; None where no Revision vouches for the pod, or its annotations cannot be read."""
    qos: str
    others_even: bool
    """Do all other containers have requests and limits that are equal, as in a Guaranteed pod?"""
    proven: float = 0.0
    """Cores with which a pod was admitted that carried what this one carries; 0 where that proves nothing."""
    head_room: float = math.inf
    """Cores that it may be given ahead of need."""

    @property
    def size(self) -> float:
        """Cores in spec: the request; with `cpu-limit: equal` the limit, where somebody set the two apart."""
        if self.burst or self.limit is None or abs(self.limit - self.request) <= _ROUNDING:
            return self.request
        return self.limit

    @property
    def admitted(self) -> float:
        """Cores with which the pod was admitted; 0 where nobody says so but the pod.

        Without a proof it is the size of a pod that was never changed: the API server counts the changes of its spec, and the
        kubelet has seen the first.
        """
        if self.proven:
            return self.proven
        return self.size if self.generation == self.observed_generation == 1 else 0.0

    @property
    def memory(self) -> int | None:
        """Bytes in spec: the limit, without one the request, and None where there is neither."""
        return self.memory_request if self.memory_limit is None else self.memory_limit

    @property
    def burst(self) -> bool:
        """Does only the request move (`cpu-limit: burst`)?"""
        return self.settings is not None and self.settings.cpu_limit is CpuLimit.BURST

    def seen(self) -> Seen:
        """The pod as the resize state machine sees it."""
        return Seen(
            self.size,
            self.in_force,
            self.pending,
            self.progress,
            self.message,
            self.generation,
            self.observed_generation,
            self.allocated,
        )


def view(
    pod: Object,
    settings: ServingSettings | None,
    *,
    service: str | None = None,
    owner: str | None = None,
    head_room: float = math.inf,
    proven: float = 0.0,
) -> PodView:
    """The pod as a value. settings, service, owner, head_room, proven: see `ownership.Owned`; the pod's own word counts for
    none of them. Raises ValueError where a quantity cannot be read."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    containers: Sequence[Object] = spec["containers"]
    serving = next((one for one in containers if is_serving(one)), {})
    seen: Object = next((one for one in status_of(status) if one["name"] == serving.get("name")), {})
    requests, limits = amounts(serving, "requests"), amounts(serving, "limits")
    generation = metadata.get("generation") or 0
    pending, why_pending = _condition(status, "PodResizePending", generation)
    progress, why_progress = _condition(status, "PodResizeInProgress", generation)
    starting: Sequence[Object] = spec.get("initContainers") or ()
    others = [one for one in containers if one is not serving]
    asked = [amounts(one, "requests") for one in (*others, *filter(_is_sidecar, starting))]
    return PodView(
        key=(metadata["namespace"], metadata["name"]),
        uid=metadata.get("uid") or "",
        revision=labels.get(REVISION_LABEL) or "",
        service=(labels.get(SERVICE_LABEL) or "") if service is None else service,
        owner=(labels.get(OWNER_UID_LABEL) or "") if owner is None else owner,
        node=spec.get("nodeName") or "",
        ip=status.get("podIP") or "",
        token=_proxy_variable(containers, PLAIN),
        control=_proxy_variable(containers, REFERENCE),
        sponge=annotations.get(PROXY) == "sponge",
        container=serving.get("name") or "",
        image=serving.get("image") or "",
        request=_cores(requests) or 0.0,
        limit=_cores(limits),
        in_force=_in_force(seen, burst=settings is not None and settings.cpu_limit is CpuLimit.BURST),
        allocated=_cores(seen.get("allocatedResources") or {}),
        memory_request=_memory(requests),
        memory_limit=_memory(limits),
        memory_in_force=_memory(amounts(seen, "limits" if _memory(limits) is not None else "requests")),
        memory_restarts=_MEMORY_RESTARTS in (serving.get("resizePolicy") or ()),
        pending=pending,
        progress=progress or ("InProgress" if why_progress is not None else ""),
        message=why_pending or why_progress or "",
        generation=generation,
        observed_generation=status.get("observedGeneration") or 0,
        phase=status.get("phase") or "",
        ready=any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ()),
        terminating="deletionTimestamp" in metadata,
        others=sum(_cores(one) or 0.0 for one in (spec.get("overhead") or {}, *asked)),
        settings=settings,
        qos=status.get("qosClass") or "",
        others_even=all(_is_even(one, "cpu") and _is_even(one, "memory") for one in (*others, *starting)),
        proven=proven,
        head_room=head_room,
    )


def control_reference(pod: Object) -> str:
    """Which token the pod's proxy asks for (`control_token.REFERENCE`); empty where it does not say."""
    return _proxy_variable((pod.get("spec") or {}).get("containers") or (), REFERENCE)


def control_digest(pod: Object) -> str:
    """SHA-256 of the token that the pod's proxy asks for (`control_token.DIGEST`), in hex; empty where it does not say."""
    return _proxy_variable((pod.get("spec") or {}).get("containers") or (), DIGEST)


def own_token(pod: PodView) -> str:
    """The token in the pod itself; empty where the controller has to derive it."""
    return pod.token


def resize_body(pod: PodView, cores: float, memory: int | None = None) -> Object:
    """The strategic-merge patch for `pods/resize` that sets the serving container to `cores` (and `memory` bytes).

    No limit is ever removed, and the QoS class stays what it is: the API server refuses both.
    """
    guaranteed = pod.qos == "Guaranteed"
    limit: float | None = cores
    if pod.burst and not guaranteed:
        limit = None if pod.limit is None else max(pod.limit, cores)
    memory_even = pod.memory_limit is not None and (
        memory is not None or pod.memory_request in (None, pod.memory_limit)
    )
    if limit == cores and pod.others_even and memory_even and not guaranteed:
        limit = cores + _EDGE
    requests = {"cpu": format_cores(cores)}
    limits = {} if limit is None else {"cpu": format_cores(limit)}
    if memory is not None:
        requests["memory"] = str(memory)
        if pod.memory_limit is not None:
            limits["memory"] = str(memory)
    resources = {"requests": requests} | ({"limits": limits} if limits else {})
    return {"spec": {"containers": [{"name": pod.container, "resources": resources}]}}


def requested(pod: Object, name: str = "cpu") -> float:
    """Cores (or bytes of `memory`) that the scheduler counts for any pod, with resizes under way; 0 once the pod has ended.
    Raises ValueError where a quantity cannot be read.

    The rule is `PodRequests` of Kubernetes. A container counts with the largest of its request in spec, the admitted one and
    the actual one; the one in spec is left out while the resize is infeasible. Init containers run one at a time before the
    others, beside the sidecars that were started before them. The pod's overhead is added.
    """
    spec, status = pod["spec"], pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return 0.0
    infeasible = any(
        one["type"] == "PodResizePending" and one["status"] == "True" and one.get("reason") == "Infeasible"
        for one in status.get("conditions") or ()
    )
    known = {one["name"]: one for one in status_of(status)}

    def count(container: Object) -> float:
        seen = known.get(container["name"], {})
        kubelets = (_amount(seen.get("allocatedResources") or {}, name), _amount(amounts(seen, "requests"), name))
        sizes = [size for size in kubelets if size is not None]
        if not (infeasible and sizes):
            sizes.append(_amount(amounts(container, "requests"), name) or 0.0)
        return max(sizes)

    always, starting = sum(count(one) for one in spec["containers"]), 0.0
    sidecars = 0.0
    for one in spec.get("initContainers") or ():
        if _is_sidecar(one):
            sidecars += count(one)
            starting = max(starting, sidecars)
        else:
            starting = max(starting, sidecars + count(one))
    total = max(always + sidecars, starting)
    of_pod = _amount(
        (spec.get("resources") or {}).get("requests") or {}, name
    )  # takes the place of the containers' sum
    return (total if of_pod is None else of_pod) + (_amount(spec.get("overhead") or {}, name) or 0.0)


def is_serving(container: Mapping[str, Any]) -> bool:
    """Does the container serve the revision's requests? Knative names its port."""
    return any(port.get("name") == USER_PORT for port in container.get("ports") or ())


def status_of(status: Object) -> Sequence[Object]:
    """The statuses of all containers."""
    return (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))


def amounts(container: Object, kind: str) -> Mapping[str, Any]:
    """Requests or limits of a container, or of its status."""
    return (container.get("resources") or {}).get(kind) or {}


def _in_force(actual: Object, *, burst: bool) -> float | None:
    kinds = ("requests", "limits") if burst else ("limits", "requests")
    found = (_cores(amounts(actual, kind)) for kind in kinds)
    return next((cores for cores in found if cores is not None), None)


def _condition(status: Object, kind: str, generation: int) -> tuple[str, str | None]:
    """Reason and message of a condition that holds for this generation of spec; ('', None) otherwise."""
    for one in status.get("conditions") or ():
        if one["type"] == kind and one["status"] == "True":
            if one.get("observedGeneration") and one["observedGeneration"] < generation:
                return "", None
            return one.get("reason") or "", one.get("message") or ""
    return "", None


def _proxy_variable(containers: Sequence[Object], name: str) -> str:
    """Of the queue-proxy's environment; empty where it is not there."""
    proxies = (container for container in containers if container["name"] == PROXY_CONTAINER)
    env = (variable for proxy in proxies for variable in proxy.get("env") or ())
    return next((variable.get("value") or "" for variable in env if variable["name"] == name), "")


def _is_sidecar(init_container: Object) -> bool:
    return bool(init_container.get("restartPolicy") == "Always")


def _is_even(container: Object, name: str) -> bool:
    limit = amounts(container, "limits").get(name)
    request = amounts(container, "requests").get(name, limit)
    return limit is not None and parse_quantity(str(limit)) == parse_quantity(str(request))


def _amount(quantities: Mapping[str, Any], name: str) -> float | None:
    return round(parse_quantity(str(quantities[name])), 6) if name in quantities else None


def _cores(quantities: Mapping[str, Any]) -> float | None:
    return _amount(quantities, "cpu")


def _memory(quantities: Mapping[str, Any]) -> int | None:
    return round(parse_quantity(str(quantities["memory"]))) if "memory" in quantities else None
