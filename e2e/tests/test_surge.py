"""A surge: the running pod grows in place and shrinks after it, and what that is worth beside Knative's own autoscaler."""

from __future__ import annotations

import math
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from e2e.harness.cgroup import QuotaLog, ServiceQuota, cgroup_of, container_id, quota_log
from e2e.harness.kube import Kube, Object, condition
from e2e.harness.services import SLO, Service, Services
from e2e.harness.surge import Part, missed, start, swapped, unanswered
from e2e.install import NAMESPACE
from e2e.tests.conftest import Measure
from knative_sponge.core.quantity import parse_quantity

_SLO_S = 0.5
_WORK = {"WORK_MS_PER_CALL": "10", "WORK_MS_PER_ROW": "20"}
_START, _PEAK = 0.25, 1.0
_BEFORE, _SURGE, _AFTER = Part(20, 4), Part(30, 16), Part(15, 4)
# Longer than the 60 s over which stock averages: its start is behind it when the surge comes.
_SETTLED = Part(90, 4)
_USER = "user-container"


def _create(services: Services, name: str, more: dict[str, str] | None = None) -> Service:
    annotations = {
        SLO: f"{_SLO_S * 1000:g}ms",
        "knative-sponge.dev/min-cores": f"{_START}",
        "knative-sponge.dev/max-cores": f"{_PEAK}",
        "knative-sponge.dev/cpu-hook": "/cpu",
        "autoscaling.knative.dev/min-scale": "1",
        **(more or {}),
    }
    return services.create(name, "affine", annotations=annotations, env=_WORK, more=["--request", f"cpu={_START}"])


def _only_pod(kube: Kube, service: Service) -> Object:
    (pod,) = kube.pods(service.name, service.namespace)
    return pod


def _identity(pod: Object) -> tuple[str, str, int]:
    status = next(one for one in pod["status"]["containerStatuses"] if one["name"] == _USER)
    return pod["metadata"]["uid"], status["containerID"], status["restartCount"]


def test_a_pod_grows_in_a_surge_and_shrinks_after_it(services: Services, kube: Kube, measure: Measure) -> None:
    service = _create(services, "model")
    pod = _only_pod(kube, service)
    before = _identity(pod)
    group = cgroup_of(container_id(pod, _USER))
    with quota_log(group) as quota, ThreadPoolExecutor(1) as pool:
        load = start(pool, service.client, [_BEFORE, _SURGE, _AFTER], _SLO_S).result()
        kube.until("the pod to be small again", lambda: quota.cores <= 1.5 * _START, timeout_s=30)
    surge_s = load.start_s + _BEFORE.seconds
    over_s = surge_s + _SURGE.seconds
    assert _identity(_only_pod(kube, service)) == before, "the same pod, the same container, never restarted"
    grown = next((at_s for at_s, cores in quota.steps if at_s > surge_s and cores >= 2 * _START), None)
    assert grown is not None, quota.steps
    shrunk = next(at_s for at_s, cores in quota.steps if at_s > over_s and cores <= 1.5 * _START)
    assert unanswered(load.outcomes) == swapped(load.outcomes) == []
    spacing = [later - earlier for (earlier, _), (later, _) in pairwise(quota.steps[1:])]
    measure("seconds from the surge's first request to twice the cores", round(grown - surge_s, 2))
    measure("seconds from its end to a small pod", round(shrunk - over_s, 1))
    measure("cores at most", quota.most)
    measure("changes of size", len(quota.steps) - 1)
    measure("least seconds between two", round(min(spacing, default=0.0), 2))
    measure("changes of size in 10 s of steady load", _changes(quota, load.start_s + 8, surge_s))
    measure("missed of sent", f"{missed(load.outcomes)} of {len(load.outcomes)}")
    lags = _lags(kube, pod, quota)
    for name, found in zip(("patch was sent", "quota changed"), zip(*lags, strict=True), strict=True):
        worst = sorted(found)[math.ceil(0.95 * len(found)) - 1]
        measure(f"seconds from a change of demand until the {name}, p50", round(statistics.median(found), 3))
        measure(f"seconds from a change of demand until the {name}, p95", round(worst, 3))
    events = [one["reason"] for one in kube.events_of("Revision", f"{service.name}-00001", service.namespace)]
    assert "Resized" in events


def _lags(kube: Kube, pod: Object, quota: QuotaLog) -> list[tuple[float, float]]:
    """Of each resize: seconds from the change of demand until its patch was sent, and until the container's quota changed.

    From the controller's log, which is written when the API server has answered; its clock is this machine's.
    """
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    said = re.compile(rf"^(\S+ \S+) INFO \S+pod_resizer: {re.escape(name)}: (\S+) cores after (\S+) s:", re.MULTILINE)
    offset_s = time.time() - time.monotonic()
    lags = []
    for controller in kube.find("pods", NAMESPACE):
        log = kube("logs", "-n", NAMESPACE, controller["metadata"]["name"])
        for stamp, cores, waited in said.findall(log):
            answered_s = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC).timestamp() - offset_s
            steps = [
                at_s
                for at_s, size in quota.steps
                if abs(size - parse_quantity(cores)) < 0.002 and abs(at_s - answered_s) < 2.0
            ]
            if steps:
                lags.append(
                    (float(waited), float(waited) + min(steps, key=lambda at: abs(at - answered_s)) - answered_s)
                )
    return lags


def _changes(quota: QuotaLog, since_s: float, until_s: float) -> int:
    return sum(since_s < at_s < until_s for at_s, _ in quota.steps)


@pytest.mark.timeout(600)
def test_fewer_deadlines_are_missed_than_with_the_stock_autoscaler(
    services: Services, kube: Kube, measure: Measure
) -> None:
    """Same image, same load, same cores at the peak: one pod of up to 1 core, or up to 4 pods of a quarter each."""
    stock = {
        "autoscaling.knative.dev/target": "1",
        "autoscaling.knative.dev/min-scale": "1",
        "autoscaling.knative.dev/max-scale": f"{_PEAK / _START:g}",
    }
    results: dict[str, int] = {}
    for name in ("ours", "stock"):
        if name == "ours":
            service = _create(services, name)
        else:
            size = ["--request", f"cpu={_START}", "--limit", f"cpu={_START}"]
            service = services.create(name, "affine", annotations=stock, env=_WORK, more=size)
        groups = ServiceQuota(kube, service, _USER)
        with groups.followed(), ThreadPoolExecutor(1) as pool:
            load = start(pool, service.client, [_SETTLED, _SURGE, _AFTER], _SLO_S).result()
        results[name] = missed(load.outcomes)
        assert swapped(load.outcomes) == []
        measure(f"{name}: missed of sent", f"{missed(load.outcomes)} of {len(load.outcomes)}")
        surge_s = load.start_s + _SETTLED.seconds
        measure(f"{name}: core-seconds", round(groups.core_seconds(), 1))
        measure(f"{name}: cores as the surge began", round(groups.core_seconds(surge_s - 1.0, surge_s), 2))
        services.kn("service", "delete", name, "--wait")
    measure("times fewer missed deadlines", round(results["stock"] / max(results["ours"], 1), 1))
    assert results["ours"] <= results["stock"]  # by how much is a figure of the report; once neither missed any


def test_a_revision_of_the_stock_class_gets_its_sizes_from_us(services: Services, kube: Kube, measure: Measure) -> None:
    service = _create(services, "kept", {"autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev"})
    pod = _only_pod(kube, service)
    with quota_log(cgroup_of(container_id(pod, _USER))) as quota, ThreadPoolExecutor(1) as pool:
        load = start(pool, service.client, [Part(8, 16)], _SLO_S)
        kube.until("the pod to grow", lambda: quota.cores >= 1.5 * _START, timeout_s=30)
        load.result()
    autoscaler = kube.get("podautoscaler", f"{service.name}-00001", service.namespace)
    assert condition(autoscaler, "Ready") == "True"
    assert autoscaler["metadata"]["annotations"]["autoscaling.knative.dev/class"].startswith("kpa.")
    measure("cores at most", quota.most)
