"""A revision of which no pod gets ready is given up, as Knative's own class gives it up, and tried again with a request."""

from __future__ import annotations

import copy
import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions.decision import (
    Action,
    RequeueAfter,
    RevisionSnapshot,
    SetReplicas,
    decide,
    is_idle,
)
from knative_sponge.controller.revisions.idle import DIAGNOSIS_S, PROGRESS_S
from tests.controller.revision_kit import DEPLOYMENT, autoscaler, condition, deployment, revision, service_status
from tests.controller.revisions.decision_kit import NOW, carried_out, others, snapshot, started, status_of

PATIENCE_S = PROGRESS_S + DIAGNOSIS_S


class Failing:
    """A revision whose pods do not get ready, and what is decided for it as time passes."""

    def __init__(self, known: Object | None = None, *, ready: int = 0, **facts: Any) -> None:
        self.now = NOW + timedelta(hours=1)
        self.ready = ready
        self.seen: RevisionSnapshot = snapshot(
            autoscaler=autoscaler() if known is None else known,
            **({"activators_visible": True, "activators_lost": False} | facts),
        )
        self.step()

    def step(self, wait_s: float = 0.0, **facts: Any) -> tuple[Action, ...]:
        """After so long this is decided; it is carried out, and its consequences with it."""
        self.now += timedelta(seconds=wait_s)
        self.seen = dataclasses.replace(self.seen, **facts)
        first = decide(self.seen, self.now)
        actions = first
        for _ in range(4):
            self.seen = self._after(actions)
            actions = decide(self.seen, self.now)
        assert not [write for write in actions if not isinstance(write, RequeueAfter)], "it does not come to rest"
        return first

    def _after(self, actions: tuple[Action, ...]) -> RevisionSnapshot:
        seen = carried_out(self.seen, actions)
        scaled, services = copy.deepcopy((seen.deployment, seen.service))
        assert scaled is not None
        assert services is not None
        ready = min(self.ready, scaled["spec"]["replicas"])
        scaled["status"]["readyReplicas"] = ready
        services["status"] = service_status(ready=ready > 0, activator=services["spec"]["mode"] == "Proxy")
        return dataclasses.replace(seen, deployment=scaled, service=services)

    @property
    def pods(self) -> int:
        assert self.seen.deployment is not None
        return int(self.seen.deployment["spec"]["replicas"])

    @property
    def active(self) -> tuple[str, str]:
        found = condition(self.seen.autoscaler["status"], "Active")
        return found["status"], found.get("reason", "")


def test_under_a_route_it_is_given_up_after_the_progress_deadline_and_tried_again_with_a_request() -> None:
    story = Failing()
    assert (story.pods, story.active) == (1, ("Unknown", "Queued"))
    story.step(PATIENCE_S - 1.0)
    assert story.pods == 1
    actions = story.step(1.0)
    assert condition(status_of(actions), "Active") == {
        "status": "False",
        "reason": "TimedOut",
        "message": "The target could not be activated.",
    }
    assert condition(status_of(actions), "Ready")["status"] == "False"
    assert condition(status_of(actions), "ScaleTargetInitialized") == {"status": "Unknown"}
    assert (story.pods, story.active) == (0, ("False", "TimedOut"))
    assert is_idle(story.seen)

    story.step(3600.0)
    assert (story.pods, story.active) == (0, ("False", "TimedOut"))
    story.step(request_waiting=True)
    assert (story.pods, story.active) == (1, ("Unknown", "Queued"))
    assert not is_idle(story.seen)
    story.step(PATIENCE_S - 1.0, request_waiting=False)
    assert story.pods == 1
    story.step(1.0)
    assert (story.pods, story.active) == (0, ("False", "TimedOut"))
    story.step(request_waiting=True)
    story.ready = 1
    story.step(request_waiting=False, idle_s=0.0)
    assert (story.pods, story.active) == (1, ("True", ""))


def test_it_is_decided_anew_in_time_although_nothing_changes() -> None:
    story = Failing(revision=revision(routing="pending"), activators_visible=False)
    assert others(decide(story.seen, story.now + timedelta(seconds=600))) == (RequeueAfter(PATIENCE_S - 600.0),)


def test_its_requests_are_moved_to_the_activator_before_the_pods_go() -> None:
    story = Failing()
    not_yet = decide(story.seen, story.now + timedelta(seconds=PATIENCE_S))
    assert not any(isinstance(write, SetReplicas) for write in not_yet)
    moved = carried_out(story.seen, not_yet)
    moved = dataclasses.replace(moved, deployment=deployment(replicas=1))
    assert SetReplicas(DEPLOYMENT, 0) in decide(moved, story.now + timedelta(seconds=PATIENCE_S))


@pytest.mark.parametrize("scales", [{"min_scale": "2"}, {"initial_scale": "3"}])
def test_before_its_first_start_it_is_given_up_whatever_the_annotations_ask_for(scales: dict[str, str]) -> None:
    story = Failing(autoscaler(**scales))
    assert story.pods > 1
    story.step(PATIENCE_S)
    assert story.pods == 0


def test_one_that_no_route_has_named_needs_no_view_of_requests() -> None:
    story = Failing(revision=revision(routing="pending"), activators_visible=False, activators_lost=True)
    story.step(PATIENCE_S)
    assert (story.pods, story.active) == (0, ("False", "TimedOut"))
    story.step(3600.0)
    assert story.pods == 0


def test_under_a_route_it_is_kept_while_nobody_would_notice_the_next_request() -> None:
    story = Failing(activators_visible=False, activators_lost=True)
    story.step(2 * PATIENCE_S)
    assert (story.pods, story.active) == (1, ("Unknown", "Queued"))
    story.step(activators_visible=True, activators_lost=False)
    assert story.pods == 0
    story.step(activators_visible=False, activators_lost=True)
    assert (story.pods, story.active) == (1, ("Unknown", "Queued"))


def test_the_revisions_own_progress_deadline_counts() -> None:
    patient = deployment()
    patient["spec"]["progressDeadlineSeconds"] = 1200
    story = Failing(deployment=patient)
    story.step(1229.0)
    assert story.pods == 1
    story.step(1.0)
    assert story.pods == 0


@pytest.mark.parametrize(
    ("known", "facts"),
    [
        pytest.param(autoscaler(initial_scale="2"), {"ready": 1}, id="one of two pods is ready"),
        pytest.param(autoscaler(), {"defaults": {"enable-scale-to-zero": "false"}}, id="nothing goes to zero"),
        pytest.param(started(min_scale="1"), {}, id="it was ready once and min-scale keeps it"),
    ],
)
def test_pods_are_kept_where(known: Object, facts: dict[str, Any]) -> None:
    story = Failing(known, **facts)
    before = story.pods
    story.step(2 * PATIENCE_S)
    assert (story.pods, story.active[0]) == (before, "Unknown")


def test_one_that_was_ready_once_and_does_not_come_up_again_goes_to_zero() -> None:
    story = Failing(started())
    story.step(PATIENCE_S)
    assert (story.pods, story.active) == (0, ("False", "TimedOut"))
    story.step(request_waiting=True)
    assert story.pods == 1


def test_one_that_loses_its_route_is_given_up_with_its_deployment() -> None:
    story = Failing(revision=revision(routing="reserve"))
    story.step(PATIENCE_S)
    assert story.pods == 1
    story.step(deployment=deployment(progressing="False"))
    assert (story.pods, story.active) == (0, ("Unknown", "NoTraffic"))
    assert not is_idle(story.seen)
