"""A revision goes to zero pods and comes back."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.revisions.decision import (
    ChangeService,
    RequeueAfter,
    RevisionSnapshot,
    SetReplicas,
    decide,
    is_idle,
)
from knative_sponge.controller.revisions.idle import RECHECK_S, IdleRules, IdleState, idle_state
from knative_sponge.controller.revisions.serverless_service import Mode
from tests.controller.revision_kit import DEPLOYMENT, autoscaler, condition, deployment, revision
from tests.controller.revisions.decision_kit import NOW, carried_out, others, service, snapshot, started, status_of
from tests.controller.revisions.story import Story

PREFIX = "autoscaling.knative.dev/"


def test_an_idle_revision_goes_behind_the_activator_and_after_the_grace_period_has_no_pods() -> None:
    story = Story()
    assert others(story.step(59.0, idle_s=59.0)) == (RequeueAfter(1.0),)
    actions = story.step(1.0, idle_s=60.0)
    assert [type(write) for write in others(actions)] == [ChangeService]
    assert story.mode is Mode.PROXY
    assert story.active == {"status": "False", "reason": "NoTraffic", "message": "The target is not receiving traffic."}
    assert condition(status_of(actions), "ScaleTargetInitialized") == {"status": "True"}
    assert others(story.step(29.0, idle_s=89.0)) == (RequeueAfter(1.0),)
    assert others(story.step(1.0, idle_s=90.0)) == (SetReplicas(DEPLOYMENT, 0),)
    assert is_idle(story.seen)


def test_the_grace_period_begins_when_knative_has_moved_the_requests() -> None:
    story = Story()
    story.step(60.0, idle_s=60.0)
    for not_yet in (service(Mode.PROXY, generation=0, activator=True), service(Mode.PROXY, activator=False)):
        assert others(decide(dataclasses.replace(story.seen, service=not_yet, idle_s=600.0), story.now)) == ()
    story.moved(story.now + timedelta(seconds=20))
    assert others(story.step(30.0, idle_s=90.0)) == (RequeueAfter(20.0),)


@pytest.mark.parametrize(
    ("idle_s", "why"), [(0.5, "a request came"), (None, "nobody knows"), (59.0, "a request came a while ago")]
)
def test_a_revision_that_is_not_idle_any_more_keeps_its_pods_and_its_own_endpoints(
    idle_s: float | None, why: str
) -> None:
    story = Story()
    story.step(60.0, idle_s=60.0)
    story.step(30.0, idle_s=idle_s)
    assert (story.pods, story.mode, story.active["status"]) == (1, Mode.SERVE, "True"), why


def test_a_request_in_an_activator_wakes_a_revision_at_once() -> None:
    story = Story().asleep()
    assert story.step(3600.0) == ()
    actions = story.step(request_waiting=True)
    assert SetReplicas(DEPLOYMENT, 1) in actions
    assert condition(status_of(actions), "Active")["status"] == "Unknown"
    assert condition(status_of(actions), "Active")["reason"] == "Queued"


def test_a_revision_that_was_woken_stays_up_until_it_was_idle_again() -> None:
    story = Story().asleep()
    story.step(request_waiting=True)
    assert others(story.step(2.0, request_waiting=False)) == (RequeueAfter(RECHECK_S),)
    story.step(30.0, idle_s=28.0)
    assert (story.pods, story.mode, story.active["status"]) == (1, Mode.SERVE, "True")
    story.step(32.0, idle_s=60.0)
    assert story.active["status"] == "False"


def test_a_request_that_waits_while_the_pods_are_going_keeps_them() -> None:
    story = Story()
    story.step(60.0, idle_s=60.0)
    story.step(30.0, idle_s=90.0, request_waiting=True)
    assert (story.pods, story.active["status"]) == (1, "True")


def test_without_a_view_of_the_activators_an_idle_revision_keeps_a_pod_and_says_why() -> None:
    story = Story()
    actions = story.step(60.0, idle_s=60.0, activators_visible=False)
    assert (story.pods, story.mode) == (1, Mode.SERVE)
    active = condition(status_of(actions), "Active")
    assert (active["status"], active["reason"]) == ("True", "ActivatorsUnseen")
    assert "metrics-protocol" in active["message"]
    assert condition(status_of(actions), "Ready") == {"status": "True"}
    # It is decided anew, and the reason goes with the next request.
    assert RequeueAfter(RECHECK_S) in actions
    story.step(1.0, idle_s=0.0)
    assert story.active == {"status": "True"}


def test_a_revision_at_zero_comes_back_when_the_view_is_lost_and_not_before() -> None:
    story = Story().asleep()
    story.step(5.0, activators_visible=False)
    assert story.pods == 0
    story.step(5.0, activators_lost=True)
    assert (story.pods, story.active["reason"]) == (1, "Queued")


def test_a_new_leader_wakes_nobody() -> None:
    """It has not read the activators yet, and heard from no pod."""
    story = Story().asleep()
    assert (
        decide(dataclasses.replace(story.seen, activators_visible=False, activators_lost=False, idle_s=None), story.now)
        == ()
    )


@pytest.mark.parametrize(
    ("annotations", "defaults"),
    [
        pytest.param({"min_scale": "1"}, {}, id="min-scale"),
        pytest.param({}, {"min-scale": "1"}, id="min-scale of the cluster"),
        pytest.param({}, {"enable-scale-to-zero": "false"}, id="the cluster allows no zero"),
    ],
)
def test_who_wants_a_pod_keeps_it(annotations: dict[str, str], defaults: dict[str, str]) -> None:
    story = Story(started(**annotations), defaults=defaults)
    assert story.step(3600.0, idle_s=3600.0) == ()
    assert story.pods == 1


def test_a_revision_that_never_was_ready_is_never_called_idle() -> None:
    starting = snapshot(idle_s=3600.0, activators_visible=True, activators_lost=False)
    assert condition(status_of(decide(starting, NOW)), "Active")["status"] == "Unknown"
    assert not is_idle(starting)


def test_where_the_cluster_allows_it_a_revision_starts_without_a_pod_and_its_service_is_ready() -> None:
    at_zero = snapshot(
        autoscaler=autoscaler(initial_scale="0"),
        deployment=deployment(replicas=0),
        service=None,
        activators_visible=True,
        activators_lost=False,
    )
    first = decide(at_zero, NOW)
    assert {entry["status"] for entry in status_of(first)["conditions"]} == {"Unknown"}
    seen = carried_out(at_zero, first)
    second = decide(seen, NOW)
    assert others(second) == ()
    assert condition(status_of(second), "ScaleTargetInitialized") == {"status": "True"}
    assert condition(status_of(second), "Active")["reason"] == "NoTraffic"
    seen = carried_out(seen, second)
    assert decide(seen, NOW) == ()
    assert SetReplicas(DEPLOYMENT, 1) in decide(dataclasses.replace(seen, request_waiting=True), NOW)


def test_a_revision_that_is_to_start_without_a_pod_gets_one_where_nobody_would_notice_its_first_request() -> None:
    at_zero = snapshot(autoscaler=autoscaler(initial_scale="0"), deployment=deployment(replicas=0))
    assert SetReplicas(DEPLOYMENT, 1) in decide(at_zero, NOW)


def test_a_reserve_revision_goes_without_grace_and_needs_no_view() -> None:
    story = Story(activators_visible=False, activators_lost=True)
    story.tell(revision=revision(routing="reserve"))
    story.step()
    assert others(story.step()) == (SetReplicas(DEPLOYMENT, 0),)
    assert not is_idle(story.seen)


def test_windows_and_retention_are_the_users() -> None:
    story = Story(started(**{"window": "6s", "scale-to-zero-pod-retention-period": "5m"}))
    assert others(story.step(5.0, idle_s=5.0)) == (RequeueAfter(1.0),)
    story.step(1.0, idle_s=6.0)
    assert story.active["status"] == "False"
    assert others(story.step(60.0, idle_s=66.0)) == (RequeueAfter(240.0),)


@pytest.mark.parametrize(
    ("annotations", "defaults", "rules"),
    [
        pytest.param({}, {}, IdleRules(True, 60.0, 30.0, 0.0), id="Knative's own defaults"),
        pytest.param(
            {},
            {
                "enable-scale-to-zero": "false",
                "stable-window": "2m",
                "scale-to-zero-grace-period": "6s",
                "scale-to-zero-pod-retention-period": "1m5s",
            },
            IdleRules(False, 120.0, 6.0, 65.0),
            id="the cluster's",
        ),
        pytest.param(
            {PREFIX + "window": "6s", PREFIX + "scaleToZeroPodRetentionPeriod": "0s"},
            {"stable-window": "2m", "scale-to-zero-pod-retention-period": "1m"},
            IdleRules(True, 6.0, 30.0, 0.0),
            id="the revision's win",
        ),
        pytest.param(
            {PREFIX + "window": "soon"},
            {"stable-window": "?", "scale-to-zero-grace-period": ""},
            IdleRules(),
            id="junk",
        ),
    ],
)
def test_rules_are_read_as_knative_reads_them(
    annotations: dict[str, str], defaults: dict[str, str], rules: IdleRules
) -> None:
    assert IdleRules.of(annotations, defaults) == rules


@given(
    idle_s=st.none() | st.floats(0.0, 200.0),
    request_waiting=st.booleans(),
    visible=st.booleans(),
    lost=st.booleans(),
    was_idle=st.booleans(),
    pods=st.integers(0, 2),
    skip_window=st.booleans(),
)
def test_nothing_goes_idle_with_requests_about_or_unseen(
    idle_s: float | None, request_waiting: bool, visible: bool, lost: bool, was_idle: bool, pods: int, skip_window: bool
) -> None:
    state = idle_state(
        IdleRules(),
        idle_s=idle_s,
        request_waiting=request_waiting,
        visible=visible,
        lost=lost,
        was_idle=was_idle,
        pods=pods,
        skip_window=skip_window,
    )
    if state is IdleState.IDLE:
        assert not request_waiting
        assert visible or (was_idle and pods == 0 and not lost)
        assert (was_idle and pods == 0) or skip_window or (idle_s is not None and idle_s >= 60.0)


def test_while_nothing_is_known_of_requests_no_revision_is_idle() -> None:
    known: RevisionSnapshot = snapshot(autoscaler=started(), deployment=deployment(ready=1))
    assert not is_idle(known)
    assert others(decide(known, NOW + timedelta(days=1))) == ()
