"""What to write for one PodAutoscaler, decided from one snapshot of its revision; pure, nothing is written here.

The actions of one decision are carried out in order. Each is conditional or idempotent, so a stale snapshot does no harm: the
API server refuses a wrong action, or the next decision corrects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

from knative_sponge.controller.annotations import ROUTING_STATE_LABEL, SCALING_ANNOTATION, has_our_class
from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions import serverless_service as serverless
from knative_sponge.controller.revisions.idle import IdleRules, IdleState, activation_s, idle_state, recheck_s
from knative_sponge.controller.revisions.scale import Routing, ScaleBounds, desired
from knative_sponge.controller.revisions.serverless_service import Mode
from knative_sponge.controller.revisions.status import (
    StatusFacts,
    given_up_since,
    idle_since,
    initialized_since,
    queued_since,
    status,
)
from knative_sponge.settings.serving import Scaling

ROUTE_S: Final = 60.0
"""A revision that no Route has named for so long after it was first ready gets the pods of `min-scale`, or none. A Route
names a revision before it is ready, so this only leaves it time. Knative's own class waits as long (its stable window)."""


@dataclass(frozen=True, slots=True)
class RevisionSnapshot:
    """What is known of one revision. An object is None while it does not exist or has not been seen. They are shared: never
    change them.

    service: the revision's ServerlessService. defaults: data of Knative's ConfigMap `config-autoscaler`. idle_s: seconds since
    its last request; None is not known. request_waiting: a request for it waits in an activator. activators_visible: the
    activators can be read, so a request for it would be noticed if it had no pods. activators_lost: they could not be read
    for long. pods_wanted: pods that its load asks for; None where only the annotations count, or while that is not known.
    """

    autoscaler: Object
    revision: Object | None
    deployment: Object | None
    service: Object | None
    defaults: Mapping[str, str]
    idle_s: float | None = None
    request_waiting: bool = False
    activators_visible: bool = False
    activators_lost: bool = True
    pods_wanted: int | None = None


@dataclass(frozen=True, slots=True)
class CreateService:
    """Create the ServerlessService."""

    body: Object


@dataclass(frozen=True, slots=True)
class ChangeService:
    """Change the spec of the ServerlessService, unless it has changed since the snapshot."""

    name: str
    body: Object


@dataclass(frozen=True, slots=True)
class SetReplicas:
    """Set the replicas of a Deployment."""

    deployment: str
    replicas: int


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace the PodAutoscaler's status, unless it has changed since the snapshot."""

    body: Object


@dataclass(frozen=True, slots=True)
class RequeueAfter:
    """Decide anew after `wait_s` seconds: time alone may change the decision by then."""

    wait_s: float


Action = CreateService | ChangeService | SetReplicas | WriteStatus | RequeueAfter


def decide(snapshot: RevisionSnapshot, now: datetime) -> tuple[Action, ...]:
    """The actions that bring the revision nearer to what it shall be (docs/knative-contract.md §3.8); none when nothing is
    to be done.

    now: wall clock, as status times have it.

    The requests of a revision that goes to zero are first sent to the activator. Its pods go once Knative has done that. A
    revision of which no pod gets ready goes to zero too, and gets a pod again with its next request.
    """
    autoscaler, service = snapshot.autoscaler, snapshot.service
    if not has_our_class(autoscaler) or snapshot.revision is None:
        return ()
    metadata = autoscaler["metadata"]
    annotations = metadata.get("annotations") or {}
    since = initialized_since(autoscaler)
    started = since is not None
    waited_s = (now - since).total_seconds() if since is not None else 0.0
    routing = _routing(snapshot.revision)
    bounds = ScaleBounds.of(annotations, snapshot.defaults)
    rules = IdleRules.of(annotations, snapshot.defaults)
    replicas = _replicas(snapshot.deployment)
    hybrid = annotations.get(SCALING_ANNOTATION, "").strip() == Scaling.HYBRID and bounds.most != 1
    give_up_s = _give_up_s(snapshot, bounds, rules, routing, now)
    failed = give_up_s <= 0.0
    state = _idle_state(snapshot, bounds, rules, routing, failed=failed)
    goal = desired(
        bounds,
        routing,
        initialized=started,
        replicas=1 if replicas is None else replicas,
        stuck=serverless.condition(snapshot.deployment, "Progressing") == "False",
        waited=waited_s >= ROUTE_S,
        idle=state is IdleState.IDLE,
        # While the load is not known, the pods that it asked for stay.
        wanted=replicas if hybrid and snapshot.pods_wanted is None else snapshot.pods_wanted,
    )
    again_s: list[float] = []
    not_owned = service is not None and not serverless.owned(service, autoscaler)
    actions: list[Action] = []
    if not not_owned:
        # With several pods the activator spreads requests by load. Without it they are spread at random.
        mode = Mode.SERVE if goal and not hybrid else Mode.PROXY
        actions += _service_actions(autoscaler, service, mode)
        if replicas is not None and replicas != goal:
            left_s = 0.0 if goal else _pods_go_s(snapshot, rules, state, now, failed=failed)
            if left_s <= 0.0:
                actions.append(SetReplicas(autoscaler["spec"]["scaleTargetRef"]["name"], goal))
            elif left_s < inf:
                again_s.append(left_s)
    known = {} if not_owned or service is None else service.get("status") or {}
    at_zero = not started and goal == 0 and bounds.starts_at_zero
    facts = StatusFacts(
        generation=metadata["generation"],
        goal=goal,
        threshold=bounds.goal if started else 0 if at_zero else bounds.initial_goal,
        ready=_ready(snapshot.deployment),
        service=known.get("serviceName") or "",
        private=known.get("privateServiceName") or "",
        service_ready=not not_owned and serverless.condition(service, "Ready") == "True",
        initialized=started,
        not_owned=not_owned,
        activators_unseen=state is IdleState.ACTIVATORS_UNSEEN,
        given_up=failed and goal == 0,
    )
    new = status(autoscaler, facts, now)
    if new is not None:
        actions.append(WriteStatus({"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": new}))
    if 0.0 < give_up_s < inf:
        again_s.append(give_up_s)
    if started and routing is Routing.PENDING and waited_s < ROUTE_S:
        again_s.append(ROUTE_S - waited_s)
    if (
        state is not IdleState.IDLE
        and (snapshot.activators_visible or snapshot.idle_s is not None)
        and _may_scale_to_zero(bounds, rules, routing)
    ):
        again_s.append(recheck_s(rules, snapshot.idle_s))
    if again_s:
        actions.append(RequeueAfter(min(again_s)))
    return tuple(actions)


def _may_scale_to_zero(bounds: ScaleBounds, rules: IdleRules, routing: Routing) -> bool:
    """May the revision go to zero because it is idle? One in reserve goes to zero anyway."""
    return rules.enabled and bounds.least == 0 and routing is not Routing.RESERVE


def is_idle(snapshot: RevisionSnapshot) -> bool:
    """Does the revision go to zero, or is it there, so that only the activators may see its next request?"""
    if not has_our_class(snapshot.autoscaler) or snapshot.revision is None:
        return False
    annotations = snapshot.autoscaler["metadata"].get("annotations") or {}
    bounds, rules = ScaleBounds.of(annotations, snapshot.defaults), IdleRules.of(annotations, snapshot.defaults)
    routing = _routing(snapshot.revision)
    failed = _give_up_s(snapshot, bounds, rules, routing, None) <= 0.0
    return _idle_state(snapshot, bounds, rules, routing, failed=failed) is IdleState.IDLE


def _give_up_s(
    snapshot: RevisionSnapshot, bounds: ScaleBounds, rules: IdleRules, routing: Routing, now: datetime | None
) -> float:
    """Seconds until the revision is given up because none of its pods gets ready; 0 once it is, infinite where it never is.

    The rule is that of Knative's own class: before the first start min-scale does not count, and without scale to zero no
    revision is given up. (That class keeps the pods of an initial-scale above 1 for ever.) now: None lets only the status
    count.
    """
    replicas = _replicas(snapshot.deployment)
    may_fail = (
        rules.enabled and routing is not Routing.RESERVE and replicas is not None and not _ready(snapshot.deployment)
    )
    if not may_fail or (bounds.least > 0 and initialized_since(snapshot.autoscaler) is not None):
        return inf
    if given_up_since(snapshot.autoscaler) is not None:
        return 0.0
    queued = queued_since(snapshot.autoscaler)
    if queued is None or now is None or snapshot.deployment is None or not replicas:
        return inf
    return max(0.0, activation_s(snapshot.deployment["spec"]) - (now - queued).total_seconds())


def _idle_state(
    snapshot: RevisionSnapshot, bounds: ScaleBounds, rules: IdleRules, routing: Routing, *, failed: bool
) -> IdleState:
    """failed: no pod of the revision gets ready."""
    started = initialized_since(snapshot.autoscaler) is not None
    if failed:
        return idle_state(
            rules,
            idle_s=None,
            request_waiting=snapshot.request_waiting,
            # No request can come to a revision that no Route has named.
            visible=snapshot.activators_visible or routing is Routing.PENDING,
            lost=snapshot.activators_lost,
            was_idle=given_up_since(snapshot.autoscaler) is not None,
            pods=_replicas(snapshot.deployment) or 0,
            skip_window=True,
        )
    if not _may_scale_to_zero(bounds, rules, routing) or not (started or bounds.starts_at_zero):
        return IdleState.ACTIVE
    return idle_state(
        rules,
        idle_s=snapshot.idle_s,
        request_waiting=snapshot.request_waiting,
        visible=snapshot.activators_visible,
        lost=snapshot.activators_lost,
        was_idle=idle_since(snapshot.autoscaler) is not None,
        pods=_replicas(snapshot.deployment) or 0,
        skip_window=not started,
    )


def _routing(revision: Object) -> Routing:
    return Routing.of((revision["metadata"].get("labels") or {}).get(ROUTING_STATE_LABEL))


def _pods_go_s(snapshot: RevisionSnapshot, rules: IdleRules, state: IdleState, now: datetime, *, failed: bool) -> float:
    """Seconds until the last pods may go; infinite while the public Service still sends requests to them."""
    proxied = serverless.proxied_since(snapshot.service)
    if proxied is None:
        return inf
    if failed or state is not IdleState.IDLE:
        return 0.0
    idle = idle_since(snapshot.autoscaler)
    if idle is None:
        return inf
    return max(
        rules.retention_s - (now - idle).total_seconds(),
        rules.grace_s - (now - proxied).total_seconds(),
    )


def _service_actions(autoscaler: Object, service: Object | None, mode: Mode) -> tuple[Action, ...]:
    wanted = serverless.wanted(autoscaler, mode)
    if service is None:
        return (CreateService(wanted),)
    metadata = service["metadata"]
    if "deletionTimestamp" in metadata or not serverless.differs(service, wanted):
        return ()
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": wanted["spec"]}
    return (ChangeService(metadata["name"], body),)


def _replicas(deployment: Object | None) -> int | None:
    """The Deployment's replicas, by default one as in Kubernetes; None while there is no Deployment to scale."""
    if deployment is None or "deletionTimestamp" in deployment["metadata"]:
        return None
    count: int = deployment["spec"].get("replicas", 1)
    return count


def _ready(deployment: Object | None) -> int | None:
    if deployment is None:
        return None
    count: int = (deployment.get("status") or {}).get("readyReplicas", 0)
    return count
