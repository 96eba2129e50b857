"""What is held of a pod is small and says the same."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from knative_sponge.controller.admission.stock_proxy_report import stock_proxy
from knative_sponge.controller.cluster.node import SchedulingConstraints
from knative_sponge.controller.cluster.pod import requested
from knative_sponge.controller.cluster.pod_fields import kept_fields, read_pod
from knative_sponge.controller.cluster.pod_request import kept_of_pod, pod_request
from tests.controller.admission.pod_kit import created
from tests.controller.admission_kit import container, pod_with
from tests.controller.sized_pod import conditioned, running, viewed

LACKS_CPU = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "3 Insufficient cpu.",
}  # fmt: skip


def pods() -> dict[str, Any]:
    """Pods of all kinds."""
    starting = running()
    asks = {"resources": {"requests": {"cpu": "200m", "example.com/gpu": "1"}}}
    starting["spec"]["initContainers"] = [{"name": "mesh", "restartPolicy": "Always"} | asks, {"name": "fetch"} | asks]
    starting["spec"]["overhead"] = {"cpu": "10m"}
    starting["status"]["initContainerStatuses"] = [{"name": "mesh", "allocatedResources": {"cpu": "300m"}}]
    leaving = running()
    leaving["metadata"]["deletionTimestamp"] = "2026-11-22T08:10:44Z"
    restarting = running()
    container(restarting, "user-container")["resizePolicy"] = [
        {"resourceName": "memory", "restartPolicy": "RestartContainer"}
    ]
    return {
        "running": running(),
        "restarting for memory": restarting,
        "burst": running(cpu_limit="burst", max_cores="2"),
        "deferred": conditioned(running(), "PodResizePending", reason="Deferred", message="no", observedGeneration=3),
        "failed to resize": conditioned(running(), "PodResizeInProgress", reason="Error", message="runc"),
        "with init containers": starting,
        "leaving": leaving,
        "just created": created(pod_with()),
        "with the stock proxy by choice": created(pod_with({"slo": "500ms", "max-batch": "many"})),
        "missed by the webhook": pod_with(),
        "without deadlines": pod_with({}),
    }


@pytest.mark.parametrize("name", pods())
def test_the_kept_fields_of_a_pod_say_what_all_of_it_says(name: str) -> None:
    pod = pods()[name]
    kept = copy.deepcopy(pod)
    held = kept_fields(pod)
    assert pod == kept
    assert viewed(held) == viewed(pod)
    assert requested(held) == requested(pod)
    assert requested(held, "memory") == requested(pod, "memory")
    assert stock_proxy(held) == stock_proxy(pod)
    assert kept_fields(held) == held


@pytest.mark.parametrize("name", pods())
def test_a_pod_that_is_hardly_decoded_is_held_as_one_that_is(name: str) -> None:
    pod = pods()[name]
    pod["spec"] |= {"nodeSelector": {"zone": "a"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    read = read_pod(json.dumps(pod).encode())
    assert kept_of_pod(read) == kept_of_pod(pod)
    assert SchedulingConstraints.of(read) == SchedulingConstraints.of(pod)
    assert "managedFields" not in read["metadata"]


def test_a_pod_that_is_not_as_it_should_be_is_decoded_all_the_same() -> None:
    pod = running()
    pod["spec"]["containers"] = "none"
    assert read_pod(json.dumps(pod).encode()) == pod
    with pytest.raises(ValueError, match="array"):
        read_pod(b"[]")


def test_little_is_held_and_nothing_of_what_the_user_runs() -> None:
    pod = running()
    container(pod, "user-container")["env"].append({"name": "PASSWORD", "value": "secret"})
    text = json.dumps(kept_fields(pod))
    assert len(text) < 2000
    assert len(text) < len(json.dumps(pod)) / 3
    for left_out in ("secret", "managedFields", "PORT", "probe", "volume"):
        assert left_out not in text


def test_what_is_decoded_of_a_pod_that_waits_says_what_it_waits_for_and_who_would_make_it_anew() -> None:
    pod = created(pod_with())
    pod["spec"] |= {"nodeSelector": {"zone": "a"}, "tolerations": [{"operator": "Exists"}]}
    pod["status"] = {"phase": "Pending", "conditions": [LACKS_CPU]}
    found = pod_request(read_pod(json.dumps(pod).encode()))
    assert found == pod_request(pod)
    assert found.waits_for is not None
    (controller,) = (one["uid"] for one in pod["metadata"]["ownerReferences"] if one["controller"])
    assert found.owner == controller


def test_an_informer_finds_what_it_needs() -> None:
    metadata = kept_fields(running())["metadata"]
    assert {"namespace", "name", "uid", "resourceVersion"} <= metadata.keys()
