"""What Knative reads in the status of one PodAutoscaler."""

from __future__ import annotations

from hypothesis import given

from knative_sponge.controller.revisions.decision import RevisionSnapshot, WriteStatus, decide
from tests.controller.revision_kit import NAME, autoscaler, condition, deployment
from tests.controller.revisions.decision_kit import LATER, NOW, SNAPSHOTS, service, snapshot, started, status_of


def test_a_revision_that_starts_is_unknown_and_nothing_is_false() -> None:
    status = status_of(decide(snapshot(service=None), NOW))
    assert {entry["type"]: entry["status"] for entry in status["conditions"]} == {
        "Active": "Unknown",
        "Ready": "Unknown",
        "SKSReady": "Unknown",
        "ScaleTargetInitialized": "Unknown",
    }
    assert condition(status, "Active")["reason"] == "Queued"
    assert (status["serviceName"], status["metricsServiceName"]) == ("", "")


def test_a_revision_with_its_pod_is_ready() -> None:
    status = status_of(decide(snapshot(deployment=deployment(ready=1)), NOW))
    assert {entry["status"] for entry in status["conditions"]} == {"True"}
    assert status["serviceName"] == NAME
    assert status["metricsServiceName"] == f"{NAME}-private"
    assert (status["desiredScale"], status["actualScale"], status["observedGeneration"]) == (1, 1, 1)


def test_a_revision_is_initialized_only_with_all_initial_pods_and_a_service_name() -> None:
    scaled = autoscaler(initial_scale="3")
    two = status_of(decide(snapshot(autoscaler=scaled, deployment=deployment(replicas=3, ready=2)), NOW))
    assert condition(two, "ScaleTargetInitialized") == {"status": "Unknown"}
    nameless = snapshot(autoscaler=scaled, deployment=deployment(replicas=3, ready=3), service=None)
    assert condition(status_of(decide(nameless, NOW)), "ScaleTargetInitialized") == {"status": "Unknown"}
    three = status_of(decide(snapshot(autoscaler=scaled, deployment=deployment(replicas=3, ready=3)), NOW))
    assert condition(three, "ScaleTargetInitialized") == {"status": "True"}


def test_once_initialized_it_stays_so_without_pods() -> None:
    status = status_of(
        decide(snapshot(autoscaler=started(), deployment=deployment(ready=0), service=service(ready=False)), LATER)
    )
    assert condition(status, "ScaleTargetInitialized") == {"status": "True"}
    assert condition(status, "Active")["status"] == "Unknown"
    assert condition(status, "Ready")["status"] == "Unknown"


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    before = started()
    status = status_of(
        decide(snapshot(autoscaler=before, deployment=deployment(ready=0), service=service(ready=True)), LATER)
    )
    times = {entry["type"]: entry["lastTransitionTime"] for entry in status["conditions"]}
    assert times == {
        "Active": "2026-11-22T08:05:00Z",
        "Ready": "2026-11-22T08:05:00Z",
        "SKSReady": "2026-11-22T08:00:00Z",
        "ScaleTargetInitialized": "2026-11-22T08:00:00Z",
    }


@given(SNAPSHOTS)
def test_ready_is_the_worst_of_the_others_and_never_false_before_the_first_start(seen: RevisionSnapshot) -> None:
    actions = decide(seen, LATER)
    status = next((write.body["status"] for write in actions if isinstance(write, WriteStatus)), None)
    status = status or seen.autoscaler["status"]
    states = {entry["type"]: entry["status"] for entry in status["conditions"]}
    parts = {states[name] for name in ("Active", "ScaleTargetInitialized", "SKSReady")}
    assert states["Ready"] == ("False" if "False" in parts else "Unknown" if "Unknown" in parts else "True")
    if states["ScaleTargetInitialized"] != "True":
        assert "False" not in states.values()
