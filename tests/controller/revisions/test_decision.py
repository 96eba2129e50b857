"""What is written for one PodAutoscaler."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given

from knative_sponge.controller.annotations import METRIC_ANNOTATION
from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions.decision import (
    ROUTE_S,
    ChangeService,
    CreateService,
    RequeueAfter,
    RevisionSnapshot,
    SetReplicas,
    WriteStatus,
    decide,
)
from knative_sponge.controller.revisions.serverless_service import Mode
from tests.controller.revision_kit import DEPLOYMENT, NAME, autoscaler, condition, deployment, revision
from tests.controller.revisions.decision_kit import (
    LATER,
    NOW,
    SNAPSHOTS,
    carried_out,
    others,
    service,
    snapshot,
    started,
    status_of,
)


def test_a_new_revision_gets_its_services() -> None:
    (write,) = others(decide(snapshot(service=None), NOW))
    assert isinstance(write, CreateService)
    metadata = write.body["metadata"]
    assert metadata["name"] == NAME
    assert metadata["ownerReferences"][0]["uid"] == autoscaler()["metadata"]["uid"]
    assert metadata["ownerReferences"][0]["controller"] is True
    assert metadata["labels"] == autoscaler()["metadata"]["labels"]
    assert set(autoscaler()["metadata"]["annotations"]) - set(metadata["annotations"]) == {METRIC_ANNOTATION}
    assert write.body["spec"] == {
        "mode": "Serve",
        "numActivators": 0,
        "objectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": DEPLOYMENT},
        "protocolType": "http1",
    }


def test_when_all_is_as_it_should_be_nothing_is_written() -> None:
    known = snapshot(deployment=deployment(ready=1))
    settled = autoscaler() | {"status": status_of(decide(known, NOW))}
    assert decide(snapshot(autoscaler=settled, deployment=deployment(ready=1)), LATER) == ()


def test_pods_are_set_to_what_the_annotations_ask_for() -> None:
    assert others(decide(snapshot(autoscaler=autoscaler(min_scale="2")), NOW)) == (SetReplicas(DEPLOYMENT, 2),)
    assert others(decide(snapshot(autoscaler=started(), deployment=deployment(replicas=3, ready=3)), NOW)) == (
        SetReplicas(DEPLOYMENT, 1),
    )
    assert others(decide(snapshot(defaults={"min-scale": "4"}), NOW)) == (SetReplicas(DEPLOYMENT, 4),)


def test_a_revision_without_route_first_moves_to_the_activator_and_then_loses_its_pods() -> None:
    reserve = revision(routing="reserve")
    ready = deployment(ready=1)
    first = decide(snapshot(autoscaler=started(), revision=reserve, deployment=ready), LATER)
    (write,) = others(first)
    assert isinstance(write, ChangeService)
    assert write.body["spec"]["mode"] == "Proxy"
    assert write.body["metadata"] == {"resourceVersion": "9"}
    assert condition(status_of(first), "Active") == {
        "status": "False",
        "reason": "NoTraffic",
        "message": "The target is not receiving traffic.",
    }
    assert condition(status_of(first), "Ready")["status"] == "False"

    for not_yet in (service(Mode.PROXY, generation=0, activator=True), service(Mode.PROXY, activator=False)):
        waiting = snapshot(autoscaler=started(), revision=reserve, deployment=ready, service=not_yet)
        assert others(decide(waiting, LATER)) == ()
    moved = service(Mode.PROXY, activator=True)
    assert others(decide(snapshot(autoscaler=started(), revision=reserve, deployment=ready, service=moved), LATER)) == (
        SetReplicas(DEPLOYMENT, 0),
    )


def test_a_revision_that_gets_a_route_back_comes_up_at_once() -> None:
    gone = deployment(replicas=0)
    actions = decide(snapshot(autoscaler=started(), deployment=gone, service=service(Mode.PROXY, ready=False)), LATER)
    change, replicas = others(actions)
    assert isinstance(change, ChangeService)
    assert change.body["spec"]["mode"] == "Serve"
    assert replicas == SetReplicas(DEPLOYMENT, 1)
    assert condition(status_of(actions), "Active")["reason"] == "Queued"


def test_unreachable_alone_takes_no_pod_away() -> None:
    """A live revision whose only pod is down is Unreachable too."""
    unreachable = started()
    unreachable["spec"]["reachability"] = "Unreachable"
    assert others(decide(snapshot(autoscaler=unreachable, deployment=deployment(ready=0)), LATER)) == ()


def test_services_of_somebody_else_are_left_alone_and_named() -> None:
    foreign = service()
    foreign["metadata"]["ownerReferences"][0]["uid"] = "another"
    actions = decide(snapshot(service=foreign, deployment=deployment(replicas=3)), NOW)
    assert others(actions) == ()
    assert condition(status_of(actions), "Active")["reason"] == "NotOwned"
    assert condition(status_of(actions), "Ready")["status"] == "False"
    assert status_of(actions)["serviceName"] == ""


def test_services_that_are_being_deleted_are_waited_for() -> None:
    dying = service(Mode.PROXY)
    dying["metadata"]["deletionTimestamp"] = "2026-11-22T08:00:00Z"
    assert others(decide(snapshot(service=dying), NOW)) == ()


@pytest.mark.parametrize("class_name", ["kpa.autoscaling.knative.dev", "hpa.autoscaling.knative.dev", ""])
def test_other_classes_are_not_touched(class_name: str) -> None:
    assert decide(snapshot(autoscaler=autoscaler(class_name=class_name), service=None), NOW) == ()


def test_an_autoscaler_on_its_way_out_is_not_touched() -> None:
    dying = autoscaler()
    dying["metadata"]["deletionTimestamp"] = "2026-11-22T08:00:00Z"
    assert decide(snapshot(autoscaler=dying, service=None), NOW) == ()


def test_a_revision_that_no_route_names_goes_to_zero_after_a_while() -> None:
    """As the revisions of a Configuration without a Route do with Knative's own class."""
    seen = snapshot(autoscaler=started(), revision=revision(routing="pending"), deployment=deployment(ready=1))
    *_, last = early = decide(seen, NOW + timedelta(seconds=ROUTE_S - 20))
    assert last == RequeueAfter(20.0)
    assert status_of(early)["desiredScale"] == 1
    actions = decide(seen, NOW + timedelta(seconds=ROUTE_S))
    assert [type(write) for write in actions] == [ChangeService, WriteStatus]
    assert condition(status_of(actions), "Active") == {"status": "False"} | no_traffic()
    named = decide(dataclasses.replace(seen, revision=revision()), LATER)
    assert status_of(named)["desiredScale"] == 1


def no_traffic() -> Object:
    return {"reason": "NoTraffic", "message": "The target is not receiving traffic."}


def test_without_the_revision_nothing_is_decided() -> None:
    assert decide(snapshot(revision=None, service=None), NOW) == ()


def test_without_a_deployment_there_is_nothing_to_scale() -> None:
    actions = decide(snapshot(deployment=None, service=None), NOW)
    assert [type(write) for write in actions] == [CreateService, WriteStatus]
    assert "actualScale" not in status_of(actions)


@given(SNAPSHOTS)
def test_writing_it_all_down_leaves_nothing_to_write(seen: RevisionSnapshot) -> None:
    """Carrying out a decision, with Knative's part played, must come to rest, or it would write for ever."""
    for step in range(8):
        actions = decide(seen, LATER + step * timedelta(seconds=ROUTE_S))
        if not actions:
            return
        seen = carried_out(seen, actions)
    raise AssertionError(actions)
