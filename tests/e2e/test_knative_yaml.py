"""Knative's own YAML, fitted to the bare cluster: small directories that are laid out as its modules are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.bare.build import MODULES_BUILT
from e2e.cluster.bare.knative import Object, first, image, second
from e2e.cluster.settings import CPU_REQUEST, config_maps

SERVING, EVENTING = "knative-serving", "knative-eventing"


def a(kind: str, name: str, namespace: str | None = None, **more: Any) -> Object:
    place = {} if namespace is None else {"namespace": namespace}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **place}, **more}


def a_deployment(name: str, namespace: str, *containers: Object) -> Object:
    return a("Deployment", name, namespace, spec={"template": {"spec": {"containers": list(containers)}}})


def put(root: Path, files: dict[str, list[Object]]) -> None:
    for name, objects in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A licence first, then the documents: upstream's files begin with an empty one.
        path.write_text("# licence\n---\n" + yaml.safe_dump_all(objects))


@pytest.fixture
def modules(tmp_path: Path) -> tuple[Path, Path]:
    """What the builds of Serving and Eventing leave beside their binaries, with one object of each sort."""
    serving, eventing = tmp_path / "serving", tmp_path / "eventing"
    activator = {
        "name": "activator",
        "image": "ko://knative.dev/serving/cmd/activator",
        "resources": {"requests": {"cpu": "300m", "memory": "60Mi"}, "limits": {"cpu": "1000m"}},
    }
    put(
        serving / "config",
        {
            "serving/core/100-namespace.yaml": [a("Namespace", SERVING)],
            "serving/core/200-roles/roles.yaml": [a("ClusterRole", "knative-serving-admin")],
            "serving/core/200-serviceaccount.yaml": [a("ServiceAccount", "controller", SERVING)],
            "serving/core/300-resources/service.yaml": [a("CustomResourceDefinition", "services.serving.knative.dev")],
            "serving/core/configmaps/deployment.yaml": [
                a(
                    "ConfigMap",
                    "config-deployment",
                    SERVING,
                    data={"queue-sidecar-image": "ko://knative.dev/serving/cmd/queue", "_example": "long"},
                )
            ],
            "serving/core/configmaps/domain.yaml": [a("ConfigMap", "config-domain", SERVING)],
            "serving/core/configmaps/autoscaler.yaml": [
                a("ConfigMap", "config-autoscaler", SERVING, data={"_example": "long"}),
                a("ConfigMap", "config-observability", SERVING),
            ],
            "serving/core/configmaps/gc.yaml": [a("ConfigMap", "config-gc", SERVING, data={"_example": "long"})],
            "serving/core/deployments/activator.yaml": [a_deployment("activator", SERVING, activator)],
            "serving/core/deployments/controller-hpa.yaml": [a("HorizontalPodAutoscaler", "controller", SERVING)],
            "serving/core/webhooks/one.yaml": [a("MutatingWebhookConfiguration", "webhook.serving.knative.dev")],
            "networking/config-network.yaml": [a("ConfigMap", "config-network", SERVING, data={"_example": "long"})],
            **{
                f"networking/{name}.yaml": [a("CustomResourceDefinition", f"{name}.networking")]
                for name in ("certificate", "domain-claim", "ingress", "serverlessservice")
            },
            "caching/image.yaml": [a("CustomResourceDefinition", "images.caching")],
        },
    )
    dispatcher = {"name": "dispatcher", "image": "ko://knative.dev/eventing/cmd/in_memory/channel_dispatcher"}
    filtering = [
        {"name": "filter", "image": "ko://knative.dev/eventing/cmd/broker/filter"},
        {"name": "beside", "image": "registry.test/other:1"},
    ]
    put(
        eventing / "config" / "eventing",
        {
            "core/100-namespace.yaml": [a("Namespace", EVENTING)],
            "core/resources/broker.yaml": [a("CustomResourceDefinition", "brokers.eventing.knative.dev")],
            "core/200-eventing-serviceaccount.yaml": [a("ServiceAccount", "eventing-controller", EVENTING)],
            "core/200-webhook-serviceaccount.yaml": [a("ServiceAccount", "eventing-webhook", EVENTING)],
            "core/roles/roles.yaml": [a("ClusterRole", "knative-eventing-controller")],
            "core/configmaps/domain.yaml": [a("ConfigMap", "config-domain", EVENTING, data={"kept": "as it is"})],
            "core/webhooks/one.yaml": [a("MutatingWebhookConfiguration", "webhook.eventing.knative.dev")],
            "core/deployments/controller.yaml": [a_deployment("eventing-controller", EVENTING)],
            "core/deployments/webhook.yaml": [a_deployment("eventing-webhook", EVENTING)],
            "core/deployments/job-sink.yaml": [a_deployment("job-sink", EVENTING)],
            "channels/in-memory-channel/resources/channel.yaml": [a("CustomResourceDefinition", "inmemorychannels")],
            "channels/in-memory-channel/deployments/dispatcher.yaml": [
                a_deployment("imc-dispatcher", EVENTING, dispatcher)
            ],
            "brokers/mt-channel-broker/deployments/broker-filter.yaml": [
                a_deployment("mt-broker-filter", EVENTING, *filtering)
            ],
            "brokers/mt-channel-broker/deployments/hpa.yaml": [a("HorizontalPodAutoscaler", "filter", EVENTING)],
        },
    )
    return serving, eventing


def find(objects: list[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    (found,) = [
        one
        for one in objects
        if one["kind"] == kind
        and one["metadata"]["name"] == name
        and namespace in (None, one["metadata"].get("namespace"))
    ]
    return found


def containers(of: Object) -> list[Object]:
    found: list[Object] = of["spec"]["template"]["spec"]["containers"]
    return found


def identity(one: Object) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def test_namespaces_and_definitions_come_first_and_nothing_else(modules: tuple[Path, Path]) -> None:
    found = [identity(one) for one in first(*modules)]
    assert [name for kind, _, name in found if kind == "Namespace"] == [SERVING, EVENTING]
    assert sorted(name for kind, _, name in found if kind == "CustomResourceDefinition") == [
        "brokers.eventing.knative.dev", "certificate.networking", "domain-claim.networking", "images.caching",
        "ingress.networking", "inmemorychannels", "serverlessservice.networking", "services.serving.knative.dev",
    ]  # fmt: skip
    assert len(found) == 10


def test_everything_else_comes_second_once(modules: tuple[Path, Path]) -> None:
    found = [identity(one) for one in second(*modules)]
    assert not {identity(one) for one in first(*modules)} & set(found)
    assert len(found) == len(set(found))
    for one in (
        ("ClusterRole", "", "knative-serving-admin"),
        ("ServiceAccount", SERVING, "controller"),
        ("ConfigMap", SERVING, "config-gc"),
        ("Deployment", SERVING, "activator"),
        ("Deployment", EVENTING, "eventing-webhook"),
        ("Deployment", EVENTING, "mt-broker-filter"),
        ("MutatingWebhookConfiguration", "", "webhook.eventing.knative.dev"),
        ("Deployment", "kube-system", "coredns"),
        ("Deployment", "traefik", "traefik"),
    ):
        assert one in found


def test_a_namespace_comes_before_what_lies_in_it(modules: tuple[Path, Path]) -> None:
    known = {one["metadata"]["name"] for one in first(*modules)} | {"kube-system"}
    for one in second(*modules):
        assert one["metadata"].get("namespace", "kube-system") in known
        if one["kind"] == "Namespace":
            known.add(one["metadata"]["name"])


def test_settings_come_before_the_webhooks_that_would_check_them(modules: tuple[Path, Path]) -> None:
    kinds = [one["kind"] for one in second(*modules) if one["metadata"].get("namespace", SERVING) == SERVING]
    last = max(index for index, kind in enumerate(kinds) if kind == "ConfigMap")
    assert last < kinds.index("MutatingWebhookConfiguration")


def test_every_image_of_knative_becomes_one_that_was_built_here(modules: tuple[Path, Path]) -> None:
    objects = second(*modules)
    assert "ko://" not in repr(objects)
    assert containers(find(objects, "Deployment", "activator"))[0]["image"] == "dev.local/serving-activator:dev"
    config = find(objects, "ConfigMap", "config-deployment", SERVING)
    assert config["data"]["queue-sidecar-image"] == "dev.local/serving-queue:dev"
    (dispatcher,) = containers(find(objects, "Deployment", "imc-dispatcher"))
    assert dispatcher["image"] == "dev.local/eventing-channel_dispatcher:dev"
    ours, other = containers(find(objects, "Deployment", "mt-broker-filter"))
    assert (ours["image"], other["image"]) == ("dev.local/eventing-filter:dev", "registry.test/other:1")
    built = {image(module.name, program) for module in MODULES_BUILT for program in module.programs.values()}
    assert {ours["image"], dispatcher["image"], config["data"]["queue-sidecar-image"]} <= built


def test_servings_settings_are_added_to_what_is_there_and_eventings_are_left(modules: tuple[Path, Path]) -> None:
    objects = second(*modules)
    for name, data in config_maps("traefik.ingress.networking.knative.dev").items():
        assert data.items() <= find(objects, "ConfigMap", name, SERVING)["data"].items()
    assert find(objects, "ConfigMap", "config-autoscaler", SERVING)["data"]["_example"] == "long"
    assert find(objects, "ConfigMap", "config-gc", SERVING)["data"] == {"_example": "long"}
    assert find(objects, "ConfigMap", "config-domain", EVENTING)["data"] == {"kept": "as it is"}


def test_what_is_not_under_test_reserves_little_cpu_and_keeps_its_memory(modules: tuple[Path, Path]) -> None:
    objects = second(*modules)
    for one in objects:
        if one["kind"] == "Deployment":
            assert {each["resources"]["requests"]["cpu"] for each in containers(one)} <= {CPU_REQUEST}
    (activator,) = containers(find(objects, "Deployment", "activator"))
    assert activator["resources"] == {
        "requests": {"cpu": CPU_REQUEST, "memory": "60Mi"},
        "limits": {"cpu": "1000m"},
    }


def test_scalers_of_knatives_own_pods_and_parts_not_used_are_left_out(modules: tuple[Path, Path]) -> None:
    found = {identity(one) for one in second(*modules)}
    assert not {kind for kind, _, _ in found} & {"HorizontalPodAutoscaler"}
    assert ("Deployment", EVENTING, "job-sink") not in found


def test_what_only_a_release_adds_is_made_here(modules: tuple[Path, Path]) -> None:
    objects = second(*modules)
    for name, key in (("integrations", "timer-source"), ("transformations", "transform-jsonata")):
        assert key in find(objects, "ConfigMap", f"eventing-{name}-images", EVENTING)["data"]
