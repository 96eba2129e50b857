"""A pod begins with what earlier pods of its image have learned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knative_sponge.controller.admission.pod import review_pod
from knative_sponge.controller.cluster.node import NodeView, start_room
from knative_sponge.controller.profiles.profile import ImageProfile, image_profile, key_of
from knative_sponge.core.latency.profile import from_json
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.settings import ProxySettings
from tests.controller.admission.pod_kit import EFFECTIVE, IMAGE, minted, no_key
from tests.controller.admission_kit import container, env_of, pod_with
from tests.controller.profile_kit import document, learned

OWNER = "fee6ba98-149d-40b6-ad97-5d262bed0469"
MODEL = "registry.example/ocr@sha256:" + "5" * 64


def reviewed(pod: Any, cores: float | None = 2.5, image: str = MODEL, room: float | None = 16.0) -> Any:
    """`pod`, whose container runs MODEL, after a review that knows `image`, and the room that nodes have."""
    container(pod, "user-container")["image"] = MODEL
    labels = pod["metadata"]["labels"]
    found = {key_of(image, "", labels["serving.knative.dev/service"], OWNER): image_profile(document(), cores, 0.0)}
    changed = review_pod(pod, IMAGE, lambda _namespace, _cores: minted(), found.get, room=lambda _pod: room).changed
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


def test_a_size_that_was_learned_on_a_larger_node_is_cut_to_what_nodes_have_now() -> None:
    pod = reviewed(pod_with(), 12.0, room=1.5)
    assert size(pod) == (1.5, 1.5, 1.5)
    assert start(pod) == "learned"


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        pytest.param(5.0, 4.0, id="more than requested"),
        pytest.param(3.5, 3.5, id="less than requested, more than nodes have"),
        pytest.param(2.0, 2.0, id="as learned"),
    ],
)
def test_a_learned_size_is_not_cut_below_what_the_pod_requests(cores: float, expected: float) -> None:
    pod = pod_with()
    for amounts in container(pod, "user-container")["resources"].values():
        amounts["cpu"] = "4"
    assert size(reviewed(pod, cores, room=3.0)) == (expected, expected, expected)


def test_what_the_owner_asks_for_at_the_least_is_not_cut() -> None:
    assert size(reviewed(pod_with({"slo": "500ms", "min-cores": "3"}), 12.0, room=1.5)) == (3.0, 3.0, 3.0)


def test_without_a_node_that_the_pod_may_come_to_the_start_size_is_left_to_the_request() -> None:
    """What was learned might keep the pod from starting for good; its model is worth as much as ever."""
    pod = reviewed(pod_with(), 12.0, room=None)
    assert size(pod) == (0.1, 0.1, 0.1)
    assert start(pod) == "request"
    assert "SPONGE_PROFILE" in env_of(pod)


NODES = [
    NodeView("small", 2.0, 0.0, labels={"zone": "a"}),
    NodeView("large", 8.0, 0.0, taints=(("gpu", "yes", "NoSchedule"),), labels={"zone": "b"}),
    NodeView("closed", 64.0, 0.0, schedulable=False),
]


@pytest.mark.parametrize(
    ("spec", "room"),
    [
        pytest.param({}, 1.0, id="half of the largest that is open to it"),
        pytest.param({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, 4.0, id="a taint that it tolerates"),
        pytest.param({"nodeSelector": {"zone": "b"}}, None, id="no node is open to it"),
    ],
)
def test_the_room_for_a_new_pod_is_a_share_of_the_largest_node_that_it_may_come_to(
    spec: Any, room: float | None
) -> None:
    assert start_room({"spec": spec}, NODES) == room
    assert start_room({"spec": spec}, []) is None


def test_the_proxy_reads_the_model_that_the_pod_gives_it() -> None:
    env = {one["name"]: one.get("value", "10.0.0.7") for one in container(reviewed(pod_with()), "queue-proxy")["env"]}
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
    def fail(_key: str) -> ImageProfile | None:
        raise AssertionError

    for chosen in ({}, {"slo": "soon"}):
        review_pod(pod_with(chosen), IMAGE, no_key, fail)


@pytest.mark.parametrize("owner", [None, "", "0", OWNER.upper(), OWNER[:-1] + "0", 5, ["x"]])
def test_who_does_not_know_the_configurations_uid_learns_nothing_from_a_forged_review(owner: object) -> None:
    """Anybody may ask the webhook about a pod of any namespace, Service and image."""
    pod = pod_with()
    labels = pod["metadata"]["labels"]
    del labels["serving.knative.dev/configurationUID"]
    if owner is not None:
        labels["serving.knative.dev/configurationUID"] = owner
    forged = reviewed(pod)
    assert "SPONGE_PROFILE" not in env_of(forged)
    assert start(forged) == "request"
    assert size(forged) == size(reviewed(pod_with(), image="another"))
