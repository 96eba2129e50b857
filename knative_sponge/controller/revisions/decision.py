"""What is to be written for one PodAutoscaler, decided from one consistent snapshot; pure, nothing is written here.

All actions of one decision may be made in order. Each is conditional or idempotent, so that a stale snapshot does no harm: what
it got wrong is refused by the API server or put right by the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

from knative_sponge.controller.annotations import ROUTING_STATE_LABEL, SCALING_ANNOTATION, has_our_class
from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions import serverless
from knative_sponge.controller.revisions.idle import IdleRules, Rest, activation_s, rest, wait_s
from knative_sponge.controller.revisions.scale import Routing, ScaleBounds, desired
from knative_sponge.controller.revisions.serverless import Mode
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
"""A revision that was ready so long ago, and that no Route has named so far, is for nobody. Routes name theirs before it is
ready, so this is patience; Knative's own class waits as long without requests (its stable window)."""


@dataclass(frozen=True, slots=True)
class RevisionSnapshot:
    """What is known of one revision; None is not there, or not seen yet. The objects are shared: never change them.

    service: its ServerlessService. defaults: data of Knative's ConfigMap `config-autoscaler`. idle_s: seconds since its last
    request. request_waiting: a request waits for it in an activator. activators_visible: its next request would be noticed
    if it had no
    pods. activators_lost: that has not been so for long. pods_wanted: pods that its load asks for; None where only the
    annotations count, or while that is not known.
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
class RequeueAfter:
    """Nothing to write: time alone will change the decision, after `wait_s` seconds."""

    wait_s: float


Action = CreateService | ChangeService | SetReplicas | WriteStatus | RequeueAfter


def decide(snapshot: RevisionSnapshot, now: datetime) -> tuple[Action, ...]:
    """The actions that bring the revision nearer to what it shall be (knative-contract §3.8); none when it is there.

    now: wall clock, as status times have it.

    A revision going to zero gets its requests moved to the activator first; its pods go once Knative has done that. One of
    which no pod gets ready goes there too, and is tried again with its next request.
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
    patience_s = _patience_s(snapshot, bounds, rules, routing, now)
    failed = patience_s <= 0.0
    state = _rest(snapshot, bounds, rules, routing, failed=failed)
    goal = desired(
        bounds,
        routing,
        initialized=started,
        replicas=1 if replicas is None else replicas,
        stuck=serverless.condition(snapshot.deployment, "Progressing") == "False",
        waited=waited_s >= ROUTE_S,
        asleep=state is Rest.ASLEEP,
        # The pods that a load asked for stay while nobody knows the load.
        wanted=replicas if hybrid and snapshot.pods_wanted is None else snapshot.pods_wanted,
    )
    again_s: list[float] = []
    not_owned = service is not None and not serverless.owned(service, autoscaler)
    actions: list[Action] = []
    if not not_owned:
        # With several pods the activator spreads the requests by load; without it they are spread at random.
        mode = Mode.SERVE if goal and not hybrid else Mode.PROXY
        actions += _service_writes(autoscaler, service, mode)
        if replicas is not None and replicas != goal:
            left_s = 0.0 if goal else _left_s(snapshot, rules, state, now, failed=failed)
            if left_s <= 0.0:
                actions.append(SetReplicas(autoscaler["spec"]["scaleTargetRef"]["name"], goal))
            elif left_s < inf:
                again_s.append(left_s)
    known = {} if not_owned or service is None else service.get("status") or {}
    unborn = not started and goal == 0 and bounds.unborn
    facts = StatusFacts(
        generation=metadata["generation"],
        goal=goal,
        threshold=bounds.goal if started else 0 if unborn else bounds.initial_goal,
        ready=_ready(snapshot.deployment),
        service=known.get("serviceName") or "",
        private=known.get("privateServiceName") or "",
        service_ready=not not_owned and serverless.condition(service, "Ready") == "True",
        initialized=started,
        not_owned=not_owned,
        unseen=state is Rest.UNSEEN,
        given_up=failed and goal == 0,
    )
    new = status(autoscaler, facts, now)
    if new is not None:
        actions.append(WriteStatus({"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": new}))
    if 0.0 < patience_s < inf:
        again_s.append(patience_s)
    if started and routing is Routing.PENDING and waited_s < ROUTE_S:
        again_s.append(ROUTE_S - waited_s)
    if (
        state is not Rest.ASLEEP
        and (snapshot.activators_visible or snapshot.idle_s is not None)
        and _may_rest(bounds, rules, routing)
    ):
        again_s.append(wait_s(rules, snapshot.idle_s))
    if again_s:
        actions.append(RequeueAfter(min(again_s)))
    return tuple(actions)


def _may_rest(bounds: ScaleBounds, rules: IdleRules, routing: Routing) -> bool:
    """May the revision have no pods although a Route may name it? One that none names goes to zero for other reasons."""
    return rules.enabled and bounds.least == 0 and routing is not Routing.RESERVE


def sleeps(snapshot: RevisionSnapshot) -> bool:
    """Is the revision idle, so that its next request may be known from the activators alone?"""
    if not has_our_class(snapshot.autoscaler) or snapshot.revision is None:
        return False
    annotations = snapshot.autoscaler["metadata"].get("annotations") or {}
    bounds, rules = ScaleBounds.of(annotations, snapshot.defaults), IdleRules.of(annotations, snapshot.defaults)
    routing = _routing(snapshot.revision)
    failed = _patience_s(snapshot, bounds, rules, routing, None) <= 0.0
    return _rest(snapshot, bounds, rules, routing, failed=failed) is Rest.ASLEEP


def _patience_s(
    snapshot: RevisionSnapshot, bounds: ScaleBounds, rules: IdleRules, routing: Routing, now: datetime | None
) -> float:
    """Seconds until the revision is given up because none of its pods gets ready; 0 once it is, infinite where it never is.

    As Knative's own class does it: whatever min-scale says before the first start, and not without scale to zero. (That class
    keeps the pods of an initial-scale above 1 for ever.) Without `now` only what status says counts.
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


def _rest(snapshot: RevisionSnapshot, bounds: ScaleBounds, rules: IdleRules, routing: Routing, *, failed: bool) -> Rest:
    """failed: none of its pods gets ready."""
    started = initialized_since(snapshot.autoscaler) is not None
    if failed:
        return rest(
            rules,
            idle_s=None,
            request_waiting=snapshot.request_waiting,
            # No request can come to a revision that no Route has named.
            visible=snapshot.activators_visible or routing is Routing.PENDING,
            lost=snapshot.activators_lost,
            asleep=given_up_since(snapshot.autoscaler) is not None,
            pods=_replicas(snapshot.deployment) or 0,
            unborn=True,
        )
    if not _may_rest(bounds, rules, routing) or not (started or bounds.unborn):
        return Rest.AWAKE
    return rest(
        rules,
        idle_s=snapshot.idle_s,
        request_waiting=snapshot.request_waiting,
        visible=snapshot.activators_visible,
        lost=snapshot.activators_lost,
        asleep=idle_since(snapshot.autoscaler) is not None,
        pods=_replicas(snapshot.deployment) or 0,
        unborn=not started,
    )


def _routing(revision: Object) -> Routing:
    return Routing.of((revision["metadata"].get("labels") or {}).get(ROUTING_STATE_LABEL))


def _left_s(snapshot: RevisionSnapshot, rules: IdleRules, state: Rest, now: datetime, *, failed: bool) -> float:
    """Seconds until the last pods may go; infinite while their requests are not with the activator."""
    proxied = serverless.proxied_since(snapshot.service)
    if proxied is None:
        return inf
    if failed or state is not Rest.ASLEEP:
        return 0.0
    idle = idle_since(snapshot.autoscaler)
    if idle is None:
        return inf
    return max(
        rules.retention_s - (now - idle).total_seconds(),
        rules.grace_s - (now - proxied).total_seconds(),
    )


def _service_writes(autoscaler: Object, service: Object | None, mode: Mode) -> tuple[Action, ...]:
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
