"""What the controller sees of one revision, ready-made and drawn at random, and what it decides taken apart."""

from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions.decision import (
    Action,
    ChangeService,
    CreateService,
    RevisionSnapshot,
    SetReplicas,
    WriteStatus,
    decide,
)
from knative_sponge.controller.revisions.serverless_service import Mode, wanted
from tests.controller.revision_kit import autoscaler, condition, deployment, revision, service_status

NOW = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def service(mode: Mode = Mode.SERVE, **status: Any) -> Object:
    made = wanted(autoscaler(), mode)
    made["metadata"] |= {"generation": 1, "resourceVersion": "9"}
    return made | {"status": service_status(**status)}


def snapshot(**parts: Any) -> RevisionSnapshot:
    known = {
        "autoscaler": autoscaler(),
        "revision": revision(),
        "deployment": deployment(),
        "service": service(),
        "defaults": {},
    }
    return RevisionSnapshot(**(known | parts))


def started(**annotations: str) -> Object:
    """A PodAutoscaler that was ready once, with the status written then."""
    ready = snapshot(
        autoscaler=autoscaler(**annotations), deployment=deployment(replicas=9, ready=9), service=service(ready=True)
    )
    known = copy.deepcopy(ready.autoscaler)
    known["status"] = status_of(decide(ready, NOW))
    assert condition(known["status"], "ScaleTargetInitialized") == {"status": "True"}
    return known


def status_of(actions: tuple[Action, ...]) -> Object:
    (found,) = (write.body["status"] for write in actions if isinstance(write, WriteStatus))
    assert isinstance(found, dict)
    return found


def others(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    return tuple(write for write in actions if not isinstance(write, WriteStatus))


def carried_out(seen: RevisionSnapshot, actions: tuple[Action, ...]) -> RevisionSnapshot:
    """What is seen once all was written and Knative and the kubelet have done their part."""
    autoscaler_now, deployment_now, service_now = copy.deepcopy((seen.autoscaler, seen.deployment, seen.service))
    for write in actions:
        match write:
            case CreateService(body):
                metadata = body["metadata"] | {"generation": 1, "resourceVersion": "1"}
                service_now = copy.deepcopy(body) | {"metadata": metadata}
            case ChangeService(_, body):
                assert service_now is not None
                service_now["spec"] = body["spec"]
            case SetReplicas(_, replicas):
                assert deployment_now is not None
                deployment_now["spec"]["replicas"] = replicas
            case WriteStatus(body):
                autoscaler_now["status"] = (autoscaler_now.get("status") or {}) | body["status"]
    assert service_now is not None
    assert deployment_now is not None
    pods = deployment_now["spec"]["replicas"]
    deployment_now["status"]["readyReplicas"] = pods
    proxy = service_now["spec"]["mode"] == "Proxy"
    service_now["status"] = service_status(ready=pods > 0, activator=proxy)
    return dataclasses.replace(seen, autoscaler=autoscaler_now, deployment=deployment_now, service=service_now)


SNAPSHOTS = st.builds(
    lambda routing, replicas, ready, mode, service_ready, known, was_started, progressing: snapshot(
        autoscaler=started() if was_started else autoscaler(initial_scale="2"),
        revision=revision(routing=routing),
        deployment=deployment(replicas=replicas, ready=min(ready, replicas), progressing=progressing),
        service=service(mode, ready=service_ready, activator=mode is Mode.PROXY) if known else None,
    ),
    st.sampled_from(["active", "pending", "reserve", None]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(Mode),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["True", "False", "Unknown"]),
)
