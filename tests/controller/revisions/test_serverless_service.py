"""The ServerlessService of a PodAutoscaler: what it shall be, and whether Knative has acted on it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from knative_sponge.controller.revisions.serverless_service import (
    Mode,
    condition,
    differs,
    mode_applied,
    owned,
    proxied_since,
    wanted,
)

AUTOSCALER: dict[str, Any] = {
    "metadata": {
        "name": "ocr-1",
        "namespace": "shop",
        "uid": "u1",
        "labels": {"a": "b"},
        "annotations": {"autoscaling.knative.dev/metric": "concurrency", "c": "d"},
    },
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "ocr-1"}, "protocolType": "http1"},
}


def service(**status: Any) -> dict[str, Any]:
    made = wanted(AUTOSCALER, Mode.PROXY)
    made["metadata"]["generation"] = 2
    made["status"] = {"observedGeneration": 2, **status}
    return made


def activators(status: str) -> list[dict[str, str]]:
    return [
        {"type": "Ready", "status": "True"},
        {"type": "ActivatorEndpointsPopulated", "status": status, "lastTransitionTime": "2026-01-02T03:04:05Z"},
    ]


def test_it_is_made_as_knatives_own_classes_make_it() -> None:
    made = wanted(AUTOSCALER, Mode.SERVE)
    assert made["spec"] == {
        "mode": "Serve",
        "numActivators": 0,
        "objectRef": {"kind": "Deployment", "name": "ocr-1"},
        "protocolType": "http1",
    }
    metadata = made["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("ocr-1", "shop")
    assert (metadata["labels"], metadata["annotations"]) == ({"a": "b"}, {"c": "d"})
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("PodAutoscaler", "ocr-1", "u1")
    assert owner["controller"]
    assert owner["blockOwnerDeletion"]
    bare = {**AUTOSCALER, "metadata": {"name": "ocr-1", "namespace": "shop", "uid": "u1"}}
    assert wanted(bare, Mode.SERVE)["metadata"]["labels"] == {}


@pytest.mark.parametrize(
    ("owners", "ours"),
    [
        ([{"uid": "u1", "controller": True}], True),
        ([{"uid": "u0"}, {"uid": "u1", "controller": True}], True),
        ([{"uid": "u1"}], False),
        ([{"uid": "u0", "controller": True}], False),
        ([], False),
        (None, False),
    ],
)
def test_it_is_ours_when_the_autoscaler_controls_it(owners: list[dict[str, Any]] | None, ours: bool) -> None:
    assert owned({"metadata": {"ownerReferences": owners}}, AUTOSCALER) == ours


def test_left_out_fields_are_their_zero_values() -> None:
    wish = wanted(AUTOSCALER, Mode.PROXY)
    same = {"spec": {key: value for key, value in wish["spec"].items() if key != "numActivators"}}
    assert not differs(same, wish)
    assert not differs(wish, wish)
    assert differs(wanted(AUTOSCALER, Mode.SERVE), wish)
    assert differs({}, wish)


def test_knative_has_acted_once_it_has_seen_the_mode() -> None:
    serving = service()
    serving["spec"]["mode"] = "Serve"
    assert mode_applied(serving, Mode.SERVE)
    assert not mode_applied(serving, Mode.PROXY)
    assert not mode_applied(None, Mode.SERVE)
    serving["status"]["observedGeneration"] = 1
    assert not mode_applied(serving, Mode.SERVE)
    del serving["status"]["observedGeneration"]
    assert not mode_applied(serving, Mode.SERVE)
    serving["metadata"]["generation"] = 1
    assert not mode_applied(serving, Mode.SERVE)
    del serving["metadata"]["generation"]
    assert mode_applied(serving, Mode.SERVE)
    del serving["status"]
    assert mode_applied(serving, Mode.SERVE)


@pytest.mark.parametrize(("status", "acted"), [("True", True), ("False", False), ("Unknown", False)])
def test_requests_are_moved_when_the_activators_endpoints_are_there(status: str, acted: bool) -> None:
    moved = service(conditions=activators(status))
    assert mode_applied(moved, Mode.PROXY) == acted
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) if acted else None
    assert proxied_since(moved) == since


def test_an_absent_condition_is_unknown() -> None:
    assert condition(None, "Ready") == condition({}, "Ready") == condition(service(), "Ready") == "Unknown"
    assert condition(service(conditions=[{"type": "Ready"}]), "Ready") == "Unknown"
    assert condition(service(conditions=activators("False")), "ActivatorEndpointsPopulated") == "False"
    assert proxied_since(None) is None
