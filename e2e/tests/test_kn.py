"""A user's way: kn with one annotation on, another value, off, and a value that is wrong."""

from __future__ import annotations

import pytest

from e2e.cluster.provider import ClusterError
from e2e.harness.client import Response, asking, together
from e2e.harness.kube import Kube, condition, container, env_of
from e2e.harness.services import SLO, Service, Services
from e2e.tests.conftest import Measure

_INFER = "/v2/models/affine/infer"
_OURS = "dev.local/knative-sponge/queue-proxy:dev"
_CLASS = "autoscaling.knative.dev/class"
_SMALL = ["--request", "cpu=200m"]


def _tensor(number: int, rows: int) -> dict[str, object]:
    values = [float(number * 1000 + cell) for cell in range(rows * 3)]
    return {"id": f"r{number}", "inputs": [{"name": "x", "datatype": "FP64", "shape": [rows, 3], "data": values}]}


def _infer(service: Service, number: int, rows: int = 1) -> Response:
    return service.client.post_json(_INFER, _tensor(number, rows))


def test_one_annotation_makes_a_service_batch_by_deadline(services: Services, kube: Kube, measure: Measure) -> None:
    service = services.create("ocr", "affine", annotations={SLO: "5s"}, env={"WORK_MS_PER_CALL": "30"}, more=_SMALL)
    (pod,) = kube.pods("ocr", services.namespace)
    proxy = container(pod, "queue-proxy")
    assert proxy["image"] == _OURS
    assert env_of(proxy)["SPONGE_SLO"] == "5s"
    assert pod["metadata"]["annotations"]["knative-sponge.dev/proxy"] == "sponge"

    rows = [1 + number % 4 for number in range(40)]
    alone = [_infer(service, number, rows[number]).json() for number in range(10)]
    batched = together([lambda n=number: _infer(service, n, rows[n]) for number in range(40)])  # type: ignore[misc]

    assert [answer.status for answer in batched] == [200] * 40
    assert [answer.json() for answer in batched[:10]] == alone
    for number, answer in enumerate(batched):
        values = [2 * (number * 1000 + cell) + 1 for cell in range(rows[number] * 3)]
        assert answer.json()["outputs"][0]["data"] == values
        assert answer.json()["id"] == f"r{number}"
        assert float(answer.headers["sponge-slack-ms"]) > 0
    largest = service.client.get("/stats").json()["largest_batch"]
    assert largest > max(rows)
    measure("rows of the largest batch", largest)
    measure("slowest of 40 answers at once, s", round(max(answer.seconds for answer in batched), 3))


def test_another_slo_rolls_without_a_failed_request(services: Services, kube: Kube, measure: Measure) -> None:
    service = services.create("ocr", "affine", annotations={SLO: "5s"}, env={"WORK_MS_PER_CALL": "5"}, more=_SMALL)
    with asking(lambda: _infer(service, 7), clients=4) as tally:
        services.update("ocr", annotations={SLO: "4s"})
        kube.until(
            "the old revision's pod to be gone from the Service",
            lambda: (
                [
                    env_of(container(pod, "queue-proxy")).get("SPONGE_SLO")
                    for pod in kube.pods("ocr", services.namespace)
                ]
                == ["4s"]
            ),
            timeout_s=90,
        )
    assert tally.errors == []
    measure("requests during the roll", tally.sent)
    measure("longest, s", round(tally.longest_s, 3))
    assert tally.sent > 50


def test_without_the_annotation_the_service_is_stock_again(services: Services, kube: Kube) -> None:
    service = services.create("ocr", "affine", annotations={SLO: "5s"}, more=_SMALL)
    revision = kube.get("ksvc", "ocr", services.namespace)["status"]["latestReadyRevisionName"]
    assert (
        kube.get("revision", revision, services.namespace)["metadata"]["annotations"][_CLASS]
        == "sponge.knative-sponge.dev"
    )
    with asking(lambda: _infer(service, 7)) as tally:
        services.update("ocr", annotations={f"{SLO}-": ""})
        (new,) = [pod for pod in kube.pods("ocr", services.namespace) if SLO not in pod["metadata"]["annotations"]]
    assert tally.errors == []
    assert container(new, "queue-proxy")["image"] != _OURS
    assert not [name for name in new["metadata"]["annotations"] if name.startswith("knative-sponge.dev/")]
    revision = kube.get("ksvc", "ocr", services.namespace)["status"]["latestReadyRevisionName"]
    found = kube.get("podautoscaler", revision, services.namespace)
    assert found["metadata"]["annotations"].get(_CLASS, "kpa.autoscaling.knative.dev") == "kpa.autoscaling.knative.dev"
    assert condition(found, "Ready") == "True"
    assert "sponge-slack-ms" not in _infer(service, 3).headers


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("slo", "soon", "a duration above zero, such as 500ms or 2s"),
        ("max-batch", "many", "a whole number from 1 to 4096"),
        ("colour", "red", "one of"),
    ],
)
def test_a_wrong_annotation_is_refused_at_once(
    services: Services, kube: Kube, name: str, value: str, allowed: str
) -> None:
    annotations = {SLO: "500ms", f"knative-sponge.dev/{name}": value}
    with pytest.raises(ClusterError) as refusal:
        services.create("ocr", "affine", annotations=annotations)
    for part in (f"knative-sponge.dev/{name}", value, allowed):
        assert part in str(refusal.value)
    assert not kube.exists("ksvc", "ocr", services.namespace)
