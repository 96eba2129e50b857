"""A pod begins with what earlier pods of its image have learned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knative_sponge.controller.known import Known, key_of, known
from knative_sponge.controller.pod import review_pod
from knative_sponge.core.profile import from_json
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.settings import ProxySettings
from tests.controller.admission import container, env_of, pod_with
from tests.controller.pod_kit import EFFECTIVE, IMAGE
from tests.controller.profile_kit import document, learned

MODEL = "registry.example/ocr@sha256:" + "5" * 64


def reviewed(pod: Any, cores: float | None = 2.5, image: str = MODEL) -> Any:
    """`pod`, whose container runs MODEL, after a review that knows `image`."""
    container(pod, "user-container")["image"] = MODEL
    found = {key_of(image, "", pod["metadata"]["labels"]["serving.knative.dev/service"]): known(document(), cores, 0.0)}
    changed = review_pod(pod, IMAGE, lambda: "t-1", found.get).changed
    assert changed is not None
    return changed


def size(pod: Any) -> tuple[float, float, float]:
    resources = container(pod, "user-container")["resources"]
    texts = resources["requests"]["cpu"], resources["limits"]["cpu"], env_of(pod)["SPONGE_CORES"]
    first, second, third = map(parse_quantity, texts)
    return first, second, third


def start(pod: Any) -> str:
    found: str = json.loads(pod["metadata"]["annotations"][EFFECTIVE])["start"]
    return found


@pytest.mark.parametrize(
    ("annotations", "cores", "expected"),
    [
        pytest.param({}, 2.5, 2.5, id="as learned"),
        pytest.param({"max-cores": "2"}, 2.5, 2.0, id="above the maximum"),
        pytest.param({"min-cores": "3"}, 2.5, 3.0, id="below the minimum"),
        pytest.param({}, 0.02, 0.1, id="below the default minimum"),
    ],
)
def test_the_learned_size_is_the_start_size_within_the_bounds(
    annotations: dict[str, str], cores: float, expected: float
) -> None:
    pod = reviewed(pod_with({"slo": "500ms"} | annotations), cores)
    assert size(pod) == (expected, expected, expected)
    assert start(pod) == "learned"


def test_the_proxy_reads_the_model_that_the_pod_gives_it() -> None:
    env = {
        one["name"]: one.get("value", "from-the-pod") for one in container(reviewed(pod_with()), "queue-proxy")["env"]
    }
    profile = ProxySettings.from_env(env).profile
    assert profile is not None
    assert from_json(json.loads(profile)).predict_s(4, 2.0) == pytest.approx(learned().predict_s(4, 2.0), rel=0.01)


def test_a_model_without_a_size_leaves_the_start_size_to_the_request() -> None:
    pod = reviewed(pod_with(), None)
    assert size(pod) == (0.1, 0.1, 0.1)
    assert "SPONGE_PROFILE" in env_of(pod)
    assert start(pod) == "request"


def test_what_another_image_has_learned_is_nothing_to_this_one() -> None:
    pod = reviewed(pod_with(), image="registry.example/ocr@sha256:" + "6" * 64)
    assert "SPONGE_PROFILE" not in env_of(pod)
    assert start(pod) == "request"


def test_a_second_review_changes_nothing() -> None:
    pod = reviewed(pod_with())
    assert reviewed(pod) == pod


def test_nothing_is_looked_up_for_a_pod_that_keeps_the_stock_proxy() -> None:
    def fail(_key: str) -> Known | None:
        raise AssertionError

    for chosen in ({}, {"slo": "soon"}):
        review_pod(pod_with(chosen), IMAGE, str, fail)
