"""What is held of a pod is small and says the same."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from knative_sponge.controller.podslim import slim
from knative_sponge.controller.podview import requested, view
from knative_sponge.controller.report import stock_proxy
from tests.controller.admission import container, pod_with
from tests.controller.pod_kit import created
from tests.controller.sized_pod import conditioned, running


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
def test_a_slim_pod_says_what_the_whole_one_says(name: str) -> None:
    pod = pods()[name]
    kept = copy.deepcopy(pod)
    held = slim(pod)
    assert pod == kept
    assert view(held) == view(pod)
    assert requested(held) == requested(pod)
    assert requested(held, "memory") == requested(pod, "memory")
    assert stock_proxy(held) == stock_proxy(pod)
    assert slim(held) == held


def test_little_is_held_and_nothing_of_what_the_user_runs() -> None:
    pod = running()
    container(pod, "user-container")["env"].append({"name": "PASSWORD", "value": "secret"})
    text = json.dumps(slim(pod))
    assert len(text) < 2000
    assert len(text) < len(json.dumps(pod)) / 3
    for left_out in ("secret", "managedFields", "PORT", "probe", "volume"):
        assert left_out not in text


def test_an_informer_finds_what_it_needs() -> None:
    metadata = slim(running())["metadata"]
    assert {"namespace", "name", "uid", "resourceVersion"} <= metadata.keys()
