"""A full node: three revisions want more than there is, and the cores go where they save most deadlines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from e2e.harness.cgroup import cgroup_of, container_id, quota_log
from e2e.harness.kube import Kube
from e2e.harness.services import SLO, Services
from e2e.harness.surge import Part, missed, start, swapped, unanswered
from e2e.tests.conftest import Measure
from knative_sponge.core.quantity import parse_quantity

_USER = "user-container"
_RATES = {"busy": 14.0, "calm": 3.0, "idle": 0.0}
_SECONDS = 25.0
_BESIDE = 0.05
"""Cores of a pod that are not the model server's, at most: the queue-proxy's 25m."""


def test_three_revisions_share_a_full_node_by_need(services: Services, kube: Kube, measure: Measure) -> None:
    """Without max-cores each may have the whole node. Together they start with most of it."""
    node = kube.find("nodes", None)[0]
    allocatable = parse_quantity(node["status"]["allocatable"]["cpu"])
    start_cores = round((allocatable - _requested(kube)) / len(_RATES) - _BESIDE, 2)
    clients, groups = {}, {}
    for name in _RATES:
        annotations = {
            SLO: "600ms",
            "knative-sponge.dev/min-cores": "100m",
            "knative-sponge.dev/cpu-hook": "/cpu",
            "autoscaling.knative.dev/min-scale": "1",
        }
        work = {"WORK_MS_PER_CALL": "10", "WORK_MS_PER_ROW": "40"}
        size = ["--request", f"cpu={start_cores}"]
        service = services.create(name, "affine", annotations=annotations, env=work, more=size)
        (pod,) = kube.pods(name, services.namespace)
        clients[name] = service.client
        groups[name] = cgroup_of(container_id(pod, _USER)), pod
    logs = {name: quota_log(group) for name, (group, _) in groups.items()}
    with ThreadPoolExecutor(len(_RATES)) as pool, logs["busy"] as busy, logs["calm"] as calm, logs["idle"] as idle:
        loads = {
            name: start(pool, clients[name], [Part(_SECONDS, rate)], 0.6) for name, rate in _RATES.items() if rate > 0
        }
        outcomes = {name: load.result().outcomes for name, load in loads.items()}
        kube.until("the idle one to be smallest", lambda: idle.cores <= 0.15, timeout_s=30)
        most = {"busy": busy.most, "calm": calm.most, "idle": idle.cores}
    for name, told in outcomes.items():
        assert unanswered(told) == swapped(told) == []
        late = [one for one in told if one.planned.at_s > 8.0]
        measure(f"{name}: missed of sent, after the first 8 s", f"{missed(late)} of {len(late)}")
    for name, cores in most.items():
        measure(f"{name}: cores", cores)
    assert most["busy"] > start_cores, "it took what the others did not need"
    assert _requested(kube) <= allocatable + 0.001
    for name, (_, before) in groups.items():
        (after,) = kube.pods(name, services.namespace)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert all(status["restartCount"] == 0 for status in after["status"]["containerStatuses"])


def _requested(kube: Kube) -> float:
    """Cores requested by all pods of the node that have not ended."""
    alive = [pod for pod in kube.find("pods", None) if pod["status"].get("phase") in ("Pending", "Running")]
    return sum(
        parse_quantity(one.get("resources", {}).get("requests", {}).get("cpu", "0"))
        for pod in alive
        for one in pod["spec"]["containers"]
    )
