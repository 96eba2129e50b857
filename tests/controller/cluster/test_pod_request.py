"""What a pod takes of its node: as the scheduler and the kubelet count it."""

from __future__ import annotations

from typing import Any

import pytest

from knative_sponge.controller.cluster.pod import requested
from knative_sponge.core.quantity import parse_quantity
from tests.controller.sized_pod import conditioned, running, status_of

MI = 2**20


def plain(*containers: Any, **spec: Any) -> Any:
    return {"metadata": {"namespace": "d", "name": "p"}, "spec": {"containers": list(containers)} | spec}


def asks(name: str, cpu: str | None, **more: Any) -> Any:
    return {"name": name, "resources": {"requests": {"cpu": cpu} if cpu else {}}} | more


def test_a_pod_takes_the_sum_of_its_containers_and_its_overhead() -> None:
    assert requested(plain(asks("a", "100m"), asks("b", None), asks("c", "1"))) == pytest.approx(1.1)
    assert requested(plain(asks("a", "100m"), overhead={"cpu": "250m"})) == pytest.approx(0.35)


def test_init_containers_count_one_at_a_time_beside_the_sidecars_before_them() -> None:
    starting = [asks("fetch", "2"), asks("mesh", "500m", restartPolicy="Always"), asks("warm", "2")]
    assert requested(plain(asks("a", "1"), initContainers=starting)) == pytest.approx(2.5)
    assert requested(plain(asks("a", "3"), initContainers=starting)) == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("spec", "allocated", "actual", "counts"),
    [("1", "2", "1", 2.0), ("3", "2", "1", 3.0), ("1", "1", "2", 2.0)],
    ids=["admitted", "asked for", "still in force"],
)
def test_during_a_resize_the_largest_size_counts(spec: str, allocated: str, actual: str, counts: float) -> None:
    pod = plain(asks("a", spec))
    shown = {"name": "a", "allocatedResources": {"cpu": allocated}, "resources": {"requests": {"cpu": actual}}}
    pod["status"] = {"phase": "Running", "conditions": [], "containerStatuses": [shown]}
    assert requested(pod) == counts
    if counts == parse_quantity(spec):
        conditioned(pod, "PodResizePending", reason="Deferred")
        assert requested(pod) == counts
        pod["status"]["conditions"][-1]["reason"] = "Infeasible"
        assert requested(pod) == 2.0


def test_memory_is_counted_as_cores_are() -> None:
    pod = running()
    assert requested(pod, "memory") == 64 * MI
    status_of(pod)["allocatedResources"]["memory"] = "96Mi"
    assert requested(pod, "memory") == 96 * MI
    pod["spec"]["overhead"] = {"memory": "1Mi"}
    assert requested(pod, "memory") == 97 * MI


def test_pod_level_resources_take_the_place_of_the_sum() -> None:
    assert requested(plain(asks("a", "100m"), resources={"requests": {"cpu": "2"}})) == 2.0


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_takes_nothing(phase: str) -> None:
    assert requested(plain(asks("a", "1")) | {"status": {"phase": phase}}) == 0.0
