"""Parts of the cluster that die in mid-work: requests are answered all the same, and sizes come right afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

import pytest

from e2e.cluster.provider import ClusterError
from e2e.harness.cgroup import QuotaLog, cgroup_of, container_id, quota_log
from e2e.harness.kube import Kube, Object, condition, container
from e2e.harness.services import SLO, Service, Services
from e2e.harness.surge import Part, start, swapped, unanswered
from e2e.install import NAMESPACE
from e2e.running import current
from e2e.tests.conftest import Measure
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.profile.generator import Load

_USER = "user-container"
_SLO_S = 0.6
_SMALL, _LARGE = 0.2, 1.0


@dataclass(frozen=True, slots=True)
class Model:
    """A revision under test."""

    service: Service
    group: Path
    before: Object
    quota: QuotaLog


@pytest.fixture
def model(services: Services, kube: Kube) -> Iterator[Model]:
    annotations = {
        SLO: f"{_SLO_S * 1000:g}ms",
        "knative-sponge.dev/min-cores": f"{_SMALL}",
        "knative-sponge.dev/max-cores": f"{_LARGE}",
        "knative-sponge.dev/cpu-hook": "/cpu",
        "autoscaling.knative.dev/min-scale": "1",
    }
    work = {"WORK_MS_PER_CALL": "10", "WORK_MS_PER_ROW": "20"}
    size = ["--request", f"cpu={_SMALL}"]
    service = services.create("model", "affine", annotations=annotations, env=work, more=size)
    (pod,) = kube.pods("model", services.namespace)
    group = cgroup_of(container_id(pod, _USER))
    with quota_log(group) as quota:
        yield Model(service, group, pod, quota)


@contextmanager
def _load(model: Model, *parts: Part) -> Iterator[Future[Load]]:
    with ThreadPoolExecutor(1) as pool:
        yield start(pool, model.service.client, parts, _SLO_S)


def _same_container(kube: Kube, model: Model) -> None:
    (after,) = kube.pods(model.service.name, model.service.namespace)
    assert after["metadata"]["uid"] == model.before["metadata"]["uid"]
    assert container_id(after, _USER) == container_id(model.before, _USER)


def _every_answer_was_right(load: Load, measure: Measure) -> None:
    assert swapped(load.outcomes) == []
    assert unanswered(load.outcomes) == []
    measure("requests", len(load.outcomes))
    measure("answered by the model in time", sum(outcome.met for outcome in load.outcomes))


def _leader(kube: Kube) -> str:
    return str(kube.get("lease", "autoscaler", NAMESPACE)["spec"]["holderIdentity"])


def test_a_leader_killed_in_the_middle_of_a_resize_is_followed_by_another(
    model: Model, kube: Kube, measure: Measure
) -> None:
    leader = _leader(kube)
    with _load(model, Part(30, 16), Part(4, 4)) as running:
        kube.until("the first resize", lambda: model.quota.cores > _SMALL, timeout_s=20)
        killed_s = time.monotonic()
        kube("delete", "pod", leader, "-n", NAMESPACE, "--force", "--grace-period=0")
        kube.until("another leader", lambda: _leader(kube) not in (leader, ""), timeout_s=30)
        measure("seconds until another led", round(time.monotonic() - killed_s, 1))
        load = running.result()
    kube.until("the pod to be small again", lambda: model.quota.cores <= 1.5 * _SMALL, timeout_s=40)
    _every_answer_was_right(load, measure)
    _same_container(kube, model)
    assert all(_SMALL - 0.011 <= cores <= _LARGE + 0.011 for _, cores in model.quota.steps), model.quota.steps
    kube("rollout", "status", "deployment/autoscaler", "-n", NAMESPACE, "--timeout=60s", timeout_s=70)


def test_without_the_controller_requests_are_served_and_sizes_stay(model: Model, kube: Kube, measure: Measure) -> None:
    kube("scale", "deployment/autoscaler", "-n", NAMESPACE, "--replicas=0")
    kube.until("no controller", lambda: kube.find("pods", NAMESPACE) == [], timeout_s=60)
    try:
        steps = len(model.quota.steps)
        with _load(model, Part(10, 4)) as running:
            load = running.result()
        _every_answer_was_right(load, measure)
        assert len(model.quota.steps) == steps, "nobody was there to resize"
    finally:
        kube("scale", "deployment/autoscaler", "-n", NAMESPACE, "--replicas=2")
        kube("rollout", "status", "deployment/autoscaler", "-n", NAMESPACE, "--timeout=60s", timeout_s=70)
    with _load(model, Part(10, 16)) as running:
        kube.until("the pod to grow again", lambda: model.quota.cores > 1.5 * _SMALL, timeout_s=30)
        assert swapped(running.result().outcomes) == []


def test_a_restarted_kubelet_takes_the_resize_up(model: Model, kube: Kube, measure: Measure) -> None:
    provider = current().provider
    with _load(model, Part(34, 16)) as running:
        kube.until("the first resize", lambda: model.quota.cores > _SMALL, timeout_s=30)
        provider.stop("kubelet")
        down_s = time.monotonic()
        time.sleep(3.0)  # how long it is away is the test's input
        provider.start("kubelet")
        measure("seconds without a kubelet", round(time.monotonic() - down_s, 1))
        load = running.result()
    kube.until("the pod to be small again", lambda: model.quota.cores <= 1.5 * _SMALL, timeout_s=60)
    _every_answer_was_right(load, measure)
    _same_container(kube, model)


def test_a_minute_without_an_api_server_loses_no_answer(
    model: Model, kube: Kube, services: Services, measure: Measure
) -> None:
    provider = current().provider
    with _load(model, Part(8, 16), Part(80, 4), Part(15, 16)) as running:
        kube.until("a resize", lambda: model.quota.cores > 1.5 * _SMALL, timeout_s=30)
        provider.stop("kube-apiserver")
        away_s = time.monotonic()
        time.sleep(60.0)  # how long it is away is the test's input
        provider.start("kube-apiserver")
        kube.until("the API server", lambda: _ready(kube), timeout_s=60)
        back_s = time.monotonic()
        measure("seconds without an API server", round(back_s - away_s, 1))
        kube.until("a small size to be asked for", lambda: _asked(kube, model) <= 1.5 * _SMALL, timeout_s=60)
        measure("seconds from its return until a small size was asked for", round(time.monotonic() - back_s, 1))
        load = running.result()
    # A kubelet waits up to a minute before it asks an API server again that was away.
    kube.until("the pod to be small", lambda: model.quota.cores <= 1.5 * _SMALL, timeout_s=90)
    _every_answer_was_right(load, measure)
    _same_container(kube, model)
    # A node without heartbeats for 40 s is called not ready as soon as somebody can write that, and so are its pods, the
    # ingress's too: new connections are refused until its kubelet is heard again. Other tests are not about that.
    kube.until("all pods to be called ready again", lambda: _all_ready(kube), timeout_s=120)
    # Parts of Kubernetes and Knative, too, may see the cluster as it was for up to a minute longer.
    kube.until("the API server to take a new Service", lambda: _taken(kube, services, "new"), timeout_s=120)
    kube.until("the new Service to answer", lambda: _answers(services.service("new")), timeout_s=120)
    measure("seconds from its return until a new Service answered", round(time.monotonic() - back_s, 1))


def _all_ready(kube: Kube) -> bool:
    """The node and every pod; its kubelet has been heard by then, as the test's pod is small."""
    if condition(kube.find("nodes")[0], "Ready") != "True":
        return False
    alive = [pod for pod in kube.find("pods", None) if "deletionTimestamp" not in pod["metadata"]]
    return all(condition(pod, "Ready") == "True" for pod in alive)


def _taken(kube: Kube, services: Services, name: str) -> bool:
    """There is a Service of this name, asked for if need be; ClusterError says why it was not taken."""
    if not kube.exists("ksvc", name, services.namespace):
        services.ask_for(name, "echo", annotations={SLO: "500ms"})
    return True


def _answers(service: Service) -> bool:
    """Everything between the ingress and the container works; ClusterError says what does not."""
    try:
        answer = service.client.get()
    except (OSError, HTTPException) as error:
        raise ClusterError(f"{type(error).__name__}: {error}") from error
    if answer.status != HTTPStatus.OK:
        raise ClusterError(f"{answer.status} {answer.body[:200]!r}")
    return True


def _asked(kube: Kube, model: Model) -> float:
    (pod,) = kube.pods(model.service.name, model.service.namespace)
    return parse_quantity(container(pod, _USER)["resources"]["requests"]["cpu"])


def _ready(kube: Kube) -> bool:
    return kube("get", "--raw", "/readyz", "--request-timeout=2s") == "ok"
