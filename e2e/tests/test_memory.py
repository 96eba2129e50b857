"""Memory follows the working set: a container that fills its limit gets more before the kernel ends it."""

from __future__ import annotations

import time

from e2e.harness.cgroup import cgroup_of, container_id, memory_used
from e2e.harness.kube import Kube, container
from e2e.harness.services import SLO, Services
from e2e.tests.conftest import Measure
from knative_sponge.core.quantity import parse_quantity

_MIB = 2.0**20
_LIMIT_MIB = 96
_EVENT = {
    "ce-id": "1",
    "ce-source": "/test",
    "ce-specversion": "1.0",
    "ce-type": "filler",
    "Content-Type": "text/plain",
}


def test_a_container_that_fills_its_memory_gets_more_in_time(services: Services, kube: Kube, measure: Measure) -> None:
    annotations = {
        SLO: "30s",
        "knative-sponge.dev/protocol": "none",
        "knative-sponge.dev/min-memory": "64Mi",
        "knative-sponge.dev/max-memory": "512Mi",
        "autoscaling.knative.dev/min-scale": "1",
    }
    size = ["--request", f"cpu=50m,memory={_LIMIT_MIB}Mi", "--limit", f"memory={_LIMIT_MIB}Mi"]
    service = services.create("sink", "events", annotations=annotations, more=size)

    def limit_mib() -> float:
        (pod,) = kube.pods("sink", services.namespace)
        return parse_quantity(container(pod, "user-container")["resources"]["limits"]["memory"]) / _MIB

    # It keeps what it gets, about a MiB with each event, until most of its memory is in use.
    (pod,) = kube.pods("sink", services.namespace)
    group = cgroup_of(container_id(pod, "user-container"))
    while memory_used(group) < 0.85 * _LIMIT_MIB * _MIB:
        assert service.client.request("POST", "/", headers=_EVENT, body=b"x" * 2**20).status == 202
    started_s = time.monotonic()
    kube.until("a larger limit", lambda: limit_mib() > _LIMIT_MIB, timeout_s=30)
    measure("seconds from a limit that is nearly reached to a larger one", round(time.monotonic() - started_s, 1))
    measure("limit afterwards, MiB", limit_mib())
    (pod,) = kube.pods("sink", services.namespace)
    assert all(status["restartCount"] == 0 for status in pod["status"]["containerStatuses"])
    kube.until(
        "an event about it",
        lambda: (
            "MemoryResized" in [one["reason"] for one in kube.events_of("Revision", "sink-00001", services.namespace)]
        ),
    )
