"""Knative's own autoscaler with our proxy in the pods: it scales by what the proxy tells it on port 9090."""

from __future__ import annotations

import time

from e2e.harness.client import asking
from e2e.harness.kube import Kube, container
from e2e.harness.services import SLO, Services
from e2e.tests.conftest import Measure

_STOCK_CLASS = {
    "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev",
    "autoscaling.knative.dev/target": "1",
    "autoscaling.knative.dev/window": "6s",
    "autoscaling.knative.dev/target-burst-capacity": "0",
}


def test_the_stock_class_scales_up_to_zero_and_back(services: Services, kube: Kube, measure: Measure) -> None:
    annotations = {SLO: "5s", **_STOCK_CLASS}
    service = services.create("echo", "echo", annotations=annotations, more=["--request", "cpu=50m", "--scale", "0..3"])
    (pod,) = kube.pods("echo", services.namespace)
    assert "knative-sponge" in container(pod, "queue-proxy")["image"]

    started_s = time.monotonic()
    with asking(lambda: service.client.get("/sleep?ms=500"), clients=6) as tally:
        kube.until("more pods", lambda: len(kube.pods("echo", services.namespace)) >= 2, timeout_s=60)
        measure("seconds to more pods", round(time.monotonic() - started_s, 1))
    assert tally.errors == []

    started_s = time.monotonic()
    kube.until("no pods", lambda: kube.pods("echo", services.namespace) == [], timeout_s=120)
    measure("seconds to zero", round(time.monotonic() - started_s, 1))

    answer = service.client.get("/echo")
    assert answer.status == 200
    measure("seconds of the first request after zero", round(answer.seconds, 2))
    assert "knative-sponge" in container(kube.pods("echo", services.namespace)[0], "queue-proxy")["image"]
