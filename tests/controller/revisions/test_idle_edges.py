"""Rules of scale to zero at their edges: what annotations say, and when a revision is idle."""

from __future__ import annotations

from typing import Any

import pytest

from knative_sponge.controller.revisions.idle import IdleRules, IdleState, activation_s, idle_state, recheck_s

RULES = IdleRules(window_s=60.0)


def rests(**changes: Any) -> IdleState:
    facts = {
        "idle_s": 100.0,
        "request_waiting": False,
        "visible": True,
        "lost": False,
        "was_idle": False,
        "pods": 1,
        "skip_window": False,
    }
    return idle_state(RULES, **{**facts, **changes})


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, IdleState.IDLE),
        ({"visible": False}, IdleState.ACTIVATORS_UNSEEN),
        ({"idle_s": 59.9}, IdleState.ACTIVE),
        ({"idle_s": 60.0}, IdleState.IDLE),
        ({"idle_s": None}, IdleState.ACTIVE),
        ({"idle_s": None, "skip_window": True}, IdleState.IDLE),
        ({"idle_s": 0.0, "skip_window": True, "visible": False}, IdleState.ACTIVATORS_UNSEEN),
        ({"request_waiting": True}, IdleState.ACTIVE),
        ({"request_waiting": True, "was_idle": True, "pods": 0}, IdleState.ACTIVE),
        ({"was_idle": True, "pods": 0, "idle_s": None}, IdleState.IDLE),
        ({"was_idle": True, "pods": 0, "visible": False}, IdleState.IDLE),
        ({"was_idle": True, "pods": 0, "visible": False, "lost": True}, IdleState.ACTIVATORS_UNSEEN),
        ({"was_idle": True, "pods": 0, "lost": True}, IdleState.IDLE),
        ({"was_idle": True, "pods": 1, "idle_s": None}, IdleState.ACTIVE),
        ({"was_idle": False, "pods": 0, "idle_s": None}, IdleState.ACTIVE),
    ],
)
def test_when_a_revision_rests(facts: dict[str, Any], found: IdleState) -> None:
    assert rests(**facts) is found


@pytest.mark.parametrize(
    ("idle_s", "seconds"), [(None, 10.0), (0.0, 60.0), (50.0, 10.0), (59.5, 1.0), (60.0, 10.0), (99.0, 10.0)]
)
def test_when_it_is_looked_at_again(idle_s: float | None, seconds: float) -> None:
    assert recheck_s(RULES, idle_s) == seconds


def test_annotations_come_before_the_clusters_defaults_and_those_before_knatives() -> None:
    assert IdleRules.of({}, {}) == IdleRules() == IdleRules(True, 60.0, 30.0, 0.0)
    defaults = {
        "enable-scale-to-zero": " false ",
        "stable-window": "90s",
        "scale-to-zero-grace-period": "40s",
        "scale-to-zero-pod-retention-period": "5s",
    }
    assert IdleRules.of({}, defaults) == IdleRules(False, 90.0, 40.0, 5.0)
    own = {
        "autoscaling.knative.dev/window": "10s",
        "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "1m",
    }
    assert IdleRules.of(own, defaults) == IdleRules(False, 10.0, 40.0, 60.0)


def test_what_is_no_duration_is_passed_over() -> None:
    own = {"autoscaling.knative.dev/window": "soon"}
    assert IdleRules.of(own, {"stable-window": "90s"}).window_s == 90.0
    assert IdleRules.of(own, {"stable-window": "later"}).window_s == 60.0
    assert IdleRules.of({"autoscaling.knative.dev/window": "0s"}, {}).window_s == 60.0


@pytest.mark.parametrize("bounds", [{"window_s": 0.1}, {"grace_s": 0.0}, {"retention_s": 0.0}])
def test_rules_may_be_at_their_bounds(bounds: dict[str, float]) -> None:
    IdleRules(**bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds", [{"window_s": 0.0}, {"grace_s": -0.1}, {"retention_s": -0.1}])
def test_impossible_rules_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        IdleRules(**bounds)  # type: ignore[arg-type]


def test_a_pod_has_its_deployments_deadline_and_what_knative_reads_it_for() -> None:
    assert activation_s({"progressDeadlineSeconds": 120}) == 150.0
    assert activation_s({}) == 630.0
