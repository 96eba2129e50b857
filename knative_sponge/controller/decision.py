"""What is to be written for one PodAutoscaler, decided from one consistent look at it; pure, nothing is written here.

All writes of one decision may be made in order. Each is conditional or idempotent, so that a stale look does no harm: what
it got wrong is refused by the API server or put right by the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from knative_sponge.controller import serverless
from knative_sponge.controller.annotations import CLASS, CLASS_ANNOTATION, ROUTING_STATE_LABEL
from knative_sponge.controller.resource import Object
from knative_sponge.controller.scale import Bounds, Routing, desired
from knative_sponge.controller.serverless import Mode
from knative_sponge.controller.status import Facts, initialized_since, status

ROUTE_S: Final = 60.0
"""A revision that was ready so long ago, and that no Route has named so far, is for nobody. Routes name theirs before it is
ready, so this is patience; Knative's own class waits as long without requests (its stable window)."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of one revision; None is not there, or not seen yet. The objects are shared: never change them.

    service: its ServerlessService. defaults: data of Knative's ConfigMap `config-autoscaler`.
    """

    autoscaler: Object
    revision: Object | None
    deployment: Object | None
    service: Object | None
    defaults: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CreateService:
    """Make the ServerlessService."""

    body: Object


@dataclass(frozen=True, slots=True)
class ChangeService:
    """Give the ServerlessService another spec, unless it was changed after it was looked at."""

    name: str
    body: Object


@dataclass(frozen=True, slots=True)
class SetReplicas:
    """Set the pod count of a Deployment."""

    deployment: str
    replicas: int


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace the PodAutoscaler's status, unless it was changed after it was looked at."""

    body: Object


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Nothing to write: time alone will change the decision, after `wait_s` seconds."""

    wait_s: float


Write = CreateService | ChangeService | SetReplicas | WriteStatus | LookAgain


def ours(autoscaler: Object) -> bool:
    """Is this PodAutoscaler of our class and not being deleted?"""
    metadata = autoscaler["metadata"]
    annotations = metadata.get("annotations") or {}
    return annotations.get(CLASS_ANNOTATION) == CLASS and "deletionTimestamp" not in metadata


def decide(look: Look, now: datetime) -> tuple[Write, ...]:
    """The writes that bring the revision nearer to what it shall be (knative-contract §3.8); none when it is there.

    now: wall clock, as status times have it.

    A revision going to zero gets its requests moved to the activator first; its pods go once Knative has done that.
    """
    autoscaler, service = look.autoscaler, look.service
    if not ours(autoscaler) or look.revision is None:
        return ()
    metadata = autoscaler["metadata"]
    since = initialized_since(autoscaler)
    started = since is not None
    waited_s = (now - since).total_seconds() if since is not None else 0.0
    routing = Routing.of((look.revision["metadata"].get("labels") or {}).get(ROUTING_STATE_LABEL))
    bounds = Bounds.of(metadata.get("annotations") or {}, look.defaults)
    replicas = _replicas(look.deployment)
    goal = desired(
        bounds,
        routing,
        initialized=started,
        replicas=1 if replicas is None else replicas,
        stuck=serverless.condition(look.deployment, "Progressing") == "False",
        waited=waited_s >= ROUTE_S,
    )
    not_owned = service is not None and not serverless.owned(service, autoscaler)
    writes: list[Write] = []
    if not not_owned:
        mode = Mode.SERVE if goal else Mode.PROXY
        writes += _service_writes(autoscaler, service, mode)
        movable = bool(goal) or serverless.settled(service, Mode.PROXY)
        if replicas is not None and replicas != goal and movable:
            writes.append(SetReplicas(autoscaler["spec"]["scaleTargetRef"]["name"], goal))
    known = {} if not_owned or service is None else service.get("status") or {}
    facts = Facts(
        generation=metadata["generation"],
        goal=goal,
        threshold=max(1, goal) if started else bounds.initial_goal,
        ready=_ready(look.deployment),
        service=known.get("serviceName") or "",
        private=known.get("privateServiceName") or "",
        service_ready=not not_owned and serverless.condition(service, "Ready") == "True",
        initialized=started,
        not_owned=not_owned,
    )
    new = status(autoscaler, facts, now)
    if new is not None:
        writes.append(WriteStatus({"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": new}))
    if started and routing is Routing.PENDING and waited_s < ROUTE_S:
        writes.append(LookAgain(ROUTE_S - waited_s))
    return tuple(writes)


def _service_writes(autoscaler: Object, service: Object | None, mode: Mode) -> tuple[Write, ...]:
    wish = serverless.wanted(autoscaler, mode)
    if service is None:
        return (CreateService(wish),)
    metadata = service["metadata"]
    if "deletionTimestamp" in metadata or not serverless.differs(service, wish):
        return ()
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": wish["spec"]}
    return (ChangeService(metadata["name"], body),)


def _replicas(deployment: Object | None) -> int | None:
    """None while there is no Deployment to scale; an absent count is Kubernetes' default of one."""
    if deployment is None or "deletionTimestamp" in deployment["metadata"]:
        return None
    count: int = deployment["spec"].get("replicas", 1)
    return count


def _ready(deployment: Object | None) -> int | None:
    if deployment is None:
        return None
    count: int = (deployment.get("status") or {}).get("readyReplicas", 0)
    return count
