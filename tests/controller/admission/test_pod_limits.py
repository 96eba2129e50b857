"""With how many cores a pod starts where the administrator bounds its namespace; what is beyond is told, not refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knative_sponge.controller.admission.pod import review_pod
from knative_sponge.controller.admission.webhook import rules
from knative_sponge.controller.cluster.control_token import Control
from knative_sponge.controller.cluster.limits import NO_LIMITS, Limits
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.settings import ServingSettings
from tests.controller.admission.pod_kit import EFFECTIVE, IMAGE, minted
from tests.controller.admission.test_service import asked, service
from tests.controller.admission_kit import container, env_of, pod_with

CAP = Limits(min_cores=2.0, max_cores=2.0)


class Reviewed:
    """A pod that asks for `cpu`, after a review with these limits."""

    def __init__(self, limits: Limits | None, cpu: str = "1", **annotations: str) -> None:
        pod = pod_with({"slo": "500ms"} | {name.replace("_", "-"): text for name, text in annotations.items()})
        container(pod, "user-container")["resources"] = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}
        self.minted: list[tuple[str, float]] = []
        changed = review_pod(pod, IMAGE, self.mint, namespace="shop", bounds={"shop": limits}.__getitem__).changed
        assert changed is not None
        self.pod: Any = changed

    def mint(self, namespace: str, cores: float) -> Control:
        self.minted.append((namespace, cores))
        return minted()

    @property
    def effective(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.pod["metadata"]["annotations"][EFFECTIVE])
        return found

    @property
    def sizes(self) -> tuple[float, float]:
        """Request and limit."""
        resources = container(self.pod, "user-container")["resources"]
        return parse_quantity(resources["requests"]["cpu"]), parse_quantity(resources["limits"]["cpu"])


@pytest.mark.parametrize(
    ("limits", "cpu", "annotations", "sizes"),
    [
        pytest.param(CAP, "1", {"min_cores": "32"}, (2.0, 2.0), id="min-cores above the cap"),
        pytest.param(Limits(min_cores=2.0), "1", {"min_cores": "32"}, (2.0, 2.0), id="a cap of min-cores alone"),
        pytest.param(CAP, "32", {}, (2.0, 2.0), id="a request above the cap"),
        pytest.param(CAP, "1", {"min_cores": "32", "max_cores": "64"}, (2.0, 2.0), id="both above"),
        pytest.param(CAP, "32", {"cpu_limit": "burst"}, (2.0, 2.0), id="a burst goes no further"),
        pytest.param(CAP, "1", {"min_cores": "1500m"}, (1.5, 1.5), id="within the cap"),
        pytest.param(Limits(max_cores=0.05), "1", {}, (0.05, 0.05), id="a cap below the default minimum"),
        pytest.param(NO_LIMITS, "1", {"min_cores": "32"}, (32.0, 32.0), id="no cap"),
        pytest.param(None, "1", {"min_cores": "32"}, (1.0, 1.0), id="not known yet: what it requests"),
        pytest.param(None, "50m", {}, (0.1, 0.1), id="not known yet: the default minimum"),
        pytest.param(None, "8", {"max_cores": "4"}, (4.0, 4.0), id="not known yet: its own maximum"),
    ],
)
def test_the_start_size_is_within_the_limits(
    limits: Limits | None, cpu: str, annotations: dict[str, str], sizes: tuple[float, float]
) -> None:
    reviewed = Reviewed(limits, cpu, **annotations)
    assert reviewed.sizes == sizes
    assert parse_quantity(env_of(reviewed.pod)["SPONGE_CORES"]) == sizes[0]
    assert reviewed.minted == [("shop", sizes[0])], "what the pod carries says with how many cores it was admitted"


def test_the_pod_shows_what_counts_and_why() -> None:
    effective = Reviewed(Limits(priority=5, min_cores=2.0, max_cores=2.0), min_cores="32", priority="9").effective
    assert [effective[name] for name in ("priority", "min-cores", "max-cores")] == ["5", "2", "2"]
    assert effective["limits"] == (
        "knative-sponge-limits: min-cores 32 counts as 2, max-cores none counts as 2, priority 9 counts as 5"
    )
    assert "limits" not in Reviewed(CAP, min_cores="1", max_cores="2").effective
    assert Reviewed(None).effective["limits"] == "knative-sponge-limits not read yet"


def test_the_proxy_is_told_what_its_revision_says_since_limits_change_while_it_runs() -> None:
    env = env_of(Reviewed(CAP, min_cores="32").pod)
    assert ServingSettings.from_env(env) == ServingSettings(slo_s=0.5, min_cores=32.0)


def test_a_second_review_changes_nothing() -> None:
    once = Reviewed(CAP, min_cores="32").pod
    assert review_pod(once, IMAGE, lambda *_: minted(), namespace="shop", bounds=lambda _: CAP).changed == once


def warnings(limits: Limits | None, made: Any) -> tuple[str, ...]:
    validate = rules(IMAGE, lambda *_: minted(), bounds={"default": limits}.__getitem__)["/validate/services"]
    verdict = validate(asked(made))
    assert verdict.outcome == "allowed"
    return verdict.warnings


def test_who_writes_a_service_is_warned_of_what_counts_less() -> None:
    found = warnings(Limits(3, 2.0, 4.0), service({"slo": "1s", "min-cores": "32", "max-cores": "64", "priority": "9"}))
    assert len(found) == 3
    told = "all that the administrator allows here (ConfigMap knative-sponge-limits)"
    assert f"knative-sponge.dev/min-cores: 32 counts as 2, {told}" in found
    assert f"knative-sponge.dev/max-cores: 64 counts as 4, {told}" in found
    assert f"knative-sponge.dev/priority: 9 counts as 3, {told}" in found
    assert all(len(text) <= 256 for text in found), "the API server cuts them there"


@pytest.mark.parametrize("limits", [None, NO_LIMITS, Limits(3, 0.05, 4.0)], ids=["not known", "none", "not reached"])
def test_nobody_is_warned_of_what_he_did_not_write(limits: Limits | None) -> None:
    assert warnings(limits, service({"slo": "1s", "max-cores": "4"})) == ()
    assert warnings(Limits(3, 2.0, 4.0), service({"min-cores": "32"})) == (
        "knative-sponge.dev/min-cores: no effect without knative-sponge.dev/slo on spec.template",
    )


def with_cpu(cpu: object, **more: Any) -> Any:
    made = service({"slo": "1s"})
    made["spec"]["template"]["spec"]["containers"][0] |= {"resources": {"requests": {"cpu": cpu}}} | more
    return made


def test_who_requests_more_than_a_pod_starts_with_is_warned() -> None:
    (found,) = warnings(CAP, with_cpu("8"))
    assert found.startswith("resources: pods start with 2 cores, not 8, all that the administrator allows here")
    sidecar = {"name": "helper", "resources": {"requests": {"cpu": "8"}}}
    made = with_cpu("1", ports=[{"containerPort": 8080}])
    made["spec"]["template"]["spec"]["containers"].append(sidecar)
    assert warnings(CAP, made) == ()


@pytest.mark.parametrize("cpu", ["many", None, [], {}, "2", 2, 1e300, "9" * 5000], ids=lambda cpu: str(cpu)[:10])
def test_a_request_that_knative_will_refuse_is_left_to_it(cpu: object) -> None:
    assert all(len(text) <= 256 for text in warnings(CAP, with_cpu(cpu)))
