"""Our class goes to zero when nobody asks, and comes back with the first request, which is answered."""

from __future__ import annotations

import time

from e2e.harness.kube import Kube, condition
from e2e.harness.services import SLO, Services
from e2e.tests.conftest import Measure

_BACK = 2


def test_an_idle_revision_goes_to_zero_and_comes_back(services: Services, kube: Kube, measure: Measure) -> None:
    annotations = {SLO: "5s", "autoscaling.knative.dev/window": "6s"}
    service = services.create("echo", "echo", annotations=annotations, more=["--request", "cpu=50m"])
    assert service.client.get("/echo").status == 200
    zero_s, first_s = [], []
    for _ in range(_BACK):
        started_s = time.monotonic()
        # One that is on its way out still answers: not before it is gone is this zero.
        kube.until("no pods", lambda: kube.find("pods", services.namespace) == [], timeout_s=120)
        zero_s.append(round(time.monotonic() - started_s, 1))
        autoscaler = kube.get("podautoscaler", "echo-00001", services.namespace)
        assert condition(autoscaler, "Active") == "False"
        assert condition(kube.get("ksvc", "echo", services.namespace), "Ready") == "True"
        answer = service.client.get("/echo")
        assert answer.status == 200
        first_s.append(round(answer.seconds, 2))
    measure("seconds from the last request to no pod", zero_s)
    measure("seconds of the first request after zero", first_s)
