"""What becomes of a revision's pod, from a pod that stock Knative made."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.admission.admission_review import json_patch
from knative_sponge.controller.admission.pod import pull_policy, review_pod
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.settings import ProxySettings, ServingSettings
from tests.controller.admission.pod_kit import EFFECTIVE, IMAGE, PROXY, created, minted, no_key
from tests.controller.admission_kit import container, env_of, pod_with

NOT_REQUIRED = [
    {"resourceName": "cpu", "restartPolicy": "NotRequired"},
    {"resourceName": "memory", "restartPolicy": "NotRequired"},
]


def test_the_pod_of_a_revision_with_slo_gets_our_proxy() -> None:
    pod = created(pod_with({"slo": "500ms", "max-batch": "16"}))
    proxy = container(pod, "queue-proxy")
    assert (proxy["image"], proxy["imagePullPolicy"]) == (IMAGE, "IfNotPresent")
    env = env_of(pod)
    assert "SPONGE_CONTROL_TOKEN" not in env
    assert (env["SPONGE_CONTROL_KEY"], env["SPONGE_CONTROL_TOKEN_SHA256"]) == ("1.t-1", minted("t-1").digest)
    assert env["SPONGE_CORES"] == "100m"
    assert ServingSettings.from_env(env) == ServingSettings(slo_s=0.5, max_batch=16)
    assert container(pod, "user-container")["resizePolicy"] == NOT_REQUIRED
    assert pod["metadata"]["annotations"][PROXY] == "sponge"
    effective = json.loads(pod["metadata"]["annotations"][EFFECTIVE])
    expected = ServingSettings(slo_s=0.5, max_batch=16).effective()
    assert effective == expected | {"proxy": "sponge", "start": "request"}


def test_the_proxy_reads_the_environment_that_the_pod_gives_it() -> None:
    env = {one["name"]: one.get("value", "10.0.0.7") for one in container(created(pod_with()), "queue-proxy")["env"]}
    settings = ProxySettings.from_env(env)
    assert settings.cores == 0.1
    assert settings.control_token_sha256 == hashlib.sha256(b"t-1").digest()
    assert settings.control_token is None


def test_the_created_pod_is_valid_for_kubernetes() -> None:
    kubernetes_validate.validate(created(pod_with()), "1.37", strict=True)


def test_everything_else_of_the_pod_stays_as_it_was() -> None:
    before = pod_with()
    before["spec"]["imagePullSecrets"] = [{"name": "mine"}]
    before["spec"]["initContainers"] = [{"name": "fetch", "image": "fetch:1", "resources": {"limits": {"cpu": "2"}}}]
    after = created(before)
    for place in (before, after):
        proxy, user = container(place, "queue-proxy"), container(place, "user-container")
        for name in ("image", "imagePullPolicy"):
            proxy.pop(name)
        proxy["env"] = [one for one in proxy["env"] if not one["name"].startswith("SPONGE_")]
        user.pop("resizePolicy", None)
        for kind in ("requests", "limits"):
            user["resources"][kind].pop("cpu")
        for name in (EFFECTIVE, PROXY):
            place["metadata"]["annotations"].pop(name, None)
    assert json.dumps(after) == json.dumps(before)  # texts, so that order counts


def test_variables_are_appended_one_by_one_and_nothing_is_moved() -> None:
    before = pod_with()
    operations = json_patch(before, created(before))
    index = next(i for i, one in enumerate(before["spec"]["containers"]) if one["name"] == "queue-proxy")
    appended = [one for one in operations if one["path"] == f"/spec/containers/{index}/env/-"]
    assert [one["op"] for one in operations if "/env/" in one["path"]] == ["add"] * len(appended)
    assert len(appended) == len(env_of(created(before))) + 1, "the node's addresses are filled in by the kubelet"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_containers_are_found_in_any_order_and_by_port_not_by_name(order: tuple[int, ...]) -> None:
    pod = pod_with()
    container(pod, "user-container")["name"] = "ocr"
    pod["spec"]["containers"].append({"name": "helper", "image": "helper:1"})
    pod["spec"]["containers"] = [pod["spec"]["containers"][i] for i in order]
    after = created(pod)
    assert [one["name"] for one in after["spec"]["containers"]] == [one["name"] for one in pod["spec"]["containers"]]
    assert container(after, "ocr")["resources"]["limits"]["cpu"] == "100m"
    assert container(after, "helper") == {"name": "helper", "image": "helper:1"}
    assert container(after, "queue-proxy")["image"] == IMAGE


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("queue-proxy", "Always"),
        ("queue-proxy:latest", "Always"),
        ("queue-proxy:dev", "IfNotPresent"),
        ("registry:5000/queue-proxy", "Always"),
        ("registry:5000/a/queue-proxy:1.2", "IfNotPresent"),
        ("registry:5000/queue-proxy@sha256:" + "a" * 64, "IfNotPresent"),
        ("queue-proxy:1@sha256:" + "a" * 64, "IfNotPresent"),
        ("queue-proxy:latest@sha256:" + "a" * 64, "Always"),
    ],
)
def test_the_pull_policy_is_what_the_api_server_would_give_our_image(image: str, policy: str) -> None:
    assert pull_policy(image) == policy
    assert container(created(pod_with(), image), "queue-proxy")["imagePullPolicy"] == policy


def test_a_pull_policy_that_was_forced_after_our_review_is_left() -> None:
    pod = created(pod_with())
    container(pod, "queue-proxy")["imagePullPolicy"] = "Always"  # as the plugin AlwaysPullImages does
    assert created(pod) == pod


@pytest.mark.parametrize(
    "present", [{"value": ""}, {}, {"value": "mine"}, {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
)
def test_a_token_that_the_pod_brings_along_is_taken_from_it(present: dict[str, Any]) -> None:
    pod = pod_with()
    container(pod, "queue-proxy")["env"].append({"name": "SPONGE_CONTROL_TOKEN", **present})
    env = env_of(created(pod))
    assert "SPONGE_CONTROL_TOKEN" not in env
    assert env["SPONGE_CONTROL_TOKEN_SHA256"] == minted("t-1").digest


def test_a_copied_reference_to_another_pods_token_is_replaced() -> None:
    """What a pod brings along may be another pod's, whose token the controller would show to it."""
    once = created(pod_with(), token="first")
    again = created(once, token="second")
    assert env_of(again)["SPONGE_CONTROL_KEY"] == "1.second"
    assert env_of(again)["SPONGE_CONTROL_TOKEN_SHA256"] == minted("second").digest


def test_a_pod_starts_without_a_control_key_and_says_so() -> None:
    pod = created(pod_with())
    changed = review_pod(pod, IMAGE, no_key).changed
    assert changed is not None
    assert {"SPONGE_CONTROL_KEY", "SPONGE_CONTROL_TOKEN_SHA256", "SPONGE_CONTROL_TOKEN"} & env_of(
        changed
    ).keys() == set()
    assert json.loads(changed["metadata"]["annotations"][EFFECTIVE])["control"] == "none"
    assert changed["metadata"]["annotations"][PROXY] == "sponge"


def test_the_proxy_learns_the_addresses_of_its_node() -> None:
    env = container(created(pod_with()), "queue-proxy")["env"]
    field = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIPs"}}
    assert {"name": "SPONGE_HOST_IPS", "valueFrom": field} in env


def test_a_variable_of_ours_that_came_from_elsewhere_is_replaced_as_a_whole() -> None:
    """With both `value` and `valueFrom` the API server would refuse the pod."""
    pod = pod_with()
    container(pod, "queue-proxy")["env"].append(
        {"name": "SPONGE_SLO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    )
    env = container(created(pod), "queue-proxy")["env"]
    assert {"name": "SPONGE_SLO", "value": "500ms"} in env


def test_a_second_review_changes_nothing() -> None:
    once = created(pod_with())
    assert created(once) == once


@pytest.mark.parametrize("annotations", [{}, {"slo": ""}, {"max-batch": "8"}, {"proxy": "sponge"}])
def test_a_pod_without_slo_is_left_alone(annotations: dict[str, str]) -> None:
    assert review_pod(pod_with(annotations), IMAGE, no_key).changed is None


def test_a_pod_without_queue_proxy_is_left_alone() -> None:
    pod = pod_with()
    pod["spec"]["containers"] = [container(pod, "user-container")]
    assert review_pod(pod, IMAGE, no_key).changed is None


def h2c(pod: Any) -> None:
    next(one for one in container(pod, "queue-proxy")["env"] if one["name"] == "QUEUE_SERVING_PORT")["value"] = "8013"


def no_user_port(pod: Any) -> None:
    del container(pod, "user-container")["ports"]


def odd_quantity(pod: Any) -> None:
    container(pod, "user-container")["resources"]["requests"]["cpu"] = "many"


@pytest.mark.parametrize(
    ("annotations", "change", "why"),
    [
        pytest.param({"slo": "500ms"}, h2c, "h2c", id="h2c"),
        pytest.param({"slo": "soon"}, None, "knative-sponge.dev/slo: 'soon' is not allowed", id="invalid slo"),
        pytest.param({"slo": "1s", "max-batch": "0"}, None, "knative-sponge.dev/max-batch", id="invalid setting"),
        pytest.param({"slo": "1s", "nonsense": "1"}, None, "knative-sponge.dev/nonsense", id="unknown setting"),
        pytest.param({"slo": "1s", "protocol": "openai"}, None, "knative-sponge.dev/protocol", id="no such codec"),
        pytest.param({"slo": "1s", "max-cores": "10m"}, None, "knative-sponge.dev/max-cores", id="contradiction"),
        pytest.param({"slo": "1s"}, no_user_port, "user-port", id="no serving container"),
        pytest.param({"slo": "1s"}, odd_quantity, "'many' is not a quantity", id="unreadable request"),
    ],
)
def test_what_we_cannot_serve_keeps_the_stock_proxy_and_says_why(
    annotations: dict[str, str], change: Any, why: str
) -> None:
    pod = pod_with(annotations)
    if change is not None:
        change(pod)
    after = created(pod)
    assert after["spec"] == pod["spec"]
    assert after["metadata"]["annotations"][PROXY] == "stock"
    effective = json.loads(after["metadata"]["annotations"][EFFECTIVE])
    assert effective["proxy"] == "stock"
    assert why in effective["why"]
    assert created(after) == after


AMOUNTS = st.sampled_from(["0", "10m", "100m", "0.5", "1", "1500m", "2", "16"])
RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        kind: st.fixed_dictionaries({}, optional={"cpu": AMOUNTS, "memory": st.just("64Mi")})
        for kind in ("requests", "limits")
    },
)

CHOICES = st.fixed_dictionaries(
    {"slo": st.sampled_from(["1ms", "500ms", "2s", "soon"])},
    optional={
        "min-cores": AMOUNTS,
        "max-cores": AMOUNTS,
        "cpu-limit": st.sampled_from(["equal", "burst"]),
        "protocol": st.sampled_from(["auto", "v2", "openai"]),
        "objective": st.sampled_from(["0.5", "0.9999", "1"]),
    },
)


@given(CHOICES, RESOURCES, st.booleans(), st.permutations(range(3)))
def test_every_pod_is_created_once_and_for_all(
    choices: dict[str, str], resources: dict[str, Any], named: bool, order: list[int]
) -> None:
    pod = pod_with(choices)
    user = container(pod, "user-container")
    user["resources"] = resources
    if named:
        user["name"] = "mine"
    pod["spec"]["containers"].append({"name": "helper", "image": "helper:1"})
    pod["spec"]["containers"] = [pod["spec"]["containers"][i] for i in order]
    after = created(pod)
    assert created(after) == after
    kept = ("labels", "name", "namespace", "ownerReferences")
    assert {key: after["metadata"][key] for key in kept} == {key: pod["metadata"][key] for key in kept}
    if after["metadata"]["annotations"][PROXY] == "stock":
        assert after["spec"] == pod["spec"]
        return
    found = container(after, user["name"])["resources"]
    request = parse_quantity(found["requests"]["cpu"])
    limit = found.get("limits", {}).get("cpu")
    assert limit is None or request <= parse_quantity(limit)
    assert parse_quantity(choices.get("min-cores", "100m")) <= request
    assert request <= parse_quantity(choices.get("max-cores", "4096"))
    env = env_of(after)
    assert ServingSettings.from_env(env) == ServingSettings.from_annotations(
        {f"knative-sponge.dev/{name}": value for name, value in choices.items()}
    )
