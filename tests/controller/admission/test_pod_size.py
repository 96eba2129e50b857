"""With how many cores a revision's container starts, its limit, and that a new size does not restart it."""

from __future__ import annotations

from typing import Any

import pytest

from knative_sponge.core.quantity import parse_quantity
from tests.controller.admission.pod_kit import created
from tests.controller.admission_kit import container, env_of, pod_with


def with_resources(resources: dict[str, Any], **annotations: str) -> Any:
    pod = pod_with({"slo": "500ms"} | {name.replace("_", "-"): value for name, value in annotations.items()})
    container(pod, "user-container")["resources"] = resources
    return pod


def sizes(pod: Any) -> tuple[str | None, str | None]:
    resources = container(pod, "user-container")["resources"]
    return resources.get("requests", {}).get("cpu"), resources.get("limits", {}).get("cpu")


@pytest.mark.parametrize(
    ("resources", "annotations", "size"),
    [
        pytest.param({"requests": {"cpu": "250m"}}, {}, ("250m", "250m"), id="request alone"),
        pytest.param({"limits": {"cpu": "2"}}, {}, ("2", "2"), id="limit alone"),
        pytest.param({"requests": {"cpu": "250m"}, "limits": {"cpu": "2"}}, {}, ("250m", "250m"), id="both"),
        pytest.param({}, {}, ("1", "1"), id="none"),
        pytest.param({"requests": {"memory": "1Gi"}}, {}, ("1", "1"), id="memory alone"),
        pytest.param({"requests": {"cpu": "50m"}}, {}, ("100m", "100m"), id="below the default minimum"),
        pytest.param({"requests": {"cpu": "50m"}}, {"min_cores": "20m"}, ("50m", "50m"), id="above the own minimum"),
        pytest.param({"requests": {"cpu": "8"}}, {"max_cores": "1500m"}, ("1500m", "1500m"), id="above the maximum"),
        pytest.param({"requests": {"cpu": "0"}}, {}, ("100m", "100m"), id="nothing asked"),
        pytest.param({"requests": {"cpu": "0.5"}}, {}, ("0.5", "500m"), id="the user's spelling stays"),
        pytest.param({}, {"cpu_limit": "burst"}, ("1", None), id="burst without any limit"),
        pytest.param({}, {"cpu_limit": "burst", "max_cores": "4"}, ("1", "4"), id="burst to max-cores"),
        pytest.param(
            {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}},
            {"cpu_limit": "burst"},
            ("1", "3"),
            id="burst, own limit",
        ),
        pytest.param(
            {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}},
            {"cpu_limit": "burst", "min_cores": "2"},
            ("2", "2"),
            id="burst, own limit below the minimum",
        ),
    ],
)
def test_start_size_and_limit(
    resources: dict[str, Any], annotations: dict[str, str], size: tuple[str | None, str | None]
) -> None:
    pod = created(with_resources(resources, **annotations))
    assert sizes(pod) == size
    assert parse_quantity(env_of(pod)["SPONGE_CORES"]) == parse_quantity(size[0] or "")
    memory = {kind: amounts.get("memory") for kind, amounts in resources.items()}
    found = container(pod, "user-container")["resources"]
    assert {kind: found[kind].get("memory") for kind in memory} == memory


def test_a_guaranteed_container_stays_guaranteed() -> None:
    same = {"cpu": "2", "memory": "1Gi"}
    pod = created(with_resources({"requests": dict(same), "limits": dict(same)}, max_cores="1"))
    resources = container(pod, "user-container")["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "1", "memory": "1Gi"}


def test_cpu_never_restarts_the_container_and_memory_keeps_what_somebody_chose() -> None:
    pod = pod_with()
    memory = {"resourceName": "memory", "restartPolicy": "RestartContainer"}
    cpu = {"resourceName": "cpu", "restartPolicy": "RestartContainer"}
    container(pod, "user-container")["resizePolicy"] = [memory, cpu]
    assert container(created(pod), "user-container")["resizePolicy"] == [
        memory,
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
    ]


def test_a_review_after_another_webhook_follows_its_new_size() -> None:
    pod = created(pod_with())
    container(pod, "user-container")["resources"]["requests"]["cpu"] = "700m"
    after = created(pod, token="other")
    assert sizes(after) == ("700m", "700m")
    assert env_of(after)["SPONGE_CORES"] == "700m"
    assert env_of(after)["SPONGE_CONTROL_KEY"] == "1.other"
    assert len(container(after, "queue-proxy")["env"]) == len(container(pod, "queue-proxy")["env"])
