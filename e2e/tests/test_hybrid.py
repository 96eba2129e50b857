"""`hybrid`: a load that outgrows one pod gets a second one, and later gives it back; no answer is lost on the way."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from e2e.harness.kube import Kube, condition
from e2e.harness.services import SLO, Services
from e2e.harness.surge import Part, missed, start, swapped, unanswered
from e2e.tests.conftest import Measure

_SLO_S = 0.6
_MOST = 0.4
_HIGH, _LOW = Part(45, 18), Part(90, 2)
_WORK = {"WORK_MS_PER_CALL": "10", "WORK_MS_PER_ROW": "25"}


def test_a_load_that_outgrows_one_pod_gets_more_and_gives_them_back(
    services: Services, kube: Kube, measure: Measure
) -> None:
    annotations = {
        SLO: f"{_SLO_S * 1000:g}ms",
        "knative-sponge.dev/scaling": "hybrid",
        "knative-sponge.dev/min-cores": "0.1",
        "knative-sponge.dev/max-cores": f"{_MOST}",
        "autoscaling.knative.dev/min-scale": "1",
        "autoscaling.knative.dev/max-scale": "2",
    }
    service = services.create("model", "affine", annotations=annotations, env=_WORK, more=["--request", "cpu=0.2"])
    serverless = kube.get("serverlessservice", "model-00001", services.namespace)
    assert serverless["spec"]["mode"] == "Proxy", "the activator spreads requests over the pods"

    def ready() -> int:
        return sum(condition(pod, "Ready") == "True" for pod in kube.pods("model", services.namespace))

    assert ready() == 1
    with ThreadPoolExecutor(1) as pool:
        begun_s = time.monotonic()
        running = start(pool, service.client, [_HIGH, _LOW], _SLO_S)
        kube.until("a second pod", lambda: ready() == 2, timeout_s=_HIGH.seconds)
        measure("seconds from the load's start to a second ready pod", round(time.monotonic() - begun_s, 1))
        kube.until("one pod", lambda: len(kube.pods("model", services.namespace)) == 1, timeout_s=150)
        measure("seconds from the load's end to one pod", round(time.monotonic() - begun_s - _HIGH.seconds, 1))
        load = running.result()
    assert unanswered(load.outcomes) == swapped(load.outcomes) == []
    measure("missed of sent", f"{missed(load.outcomes)} of {len(load.outcomes)}")
    autoscaler = kube.get("podautoscaler", "model-00001", services.namespace)
    assert autoscaler["status"]["desiredScale"] == 1
