"""The manifests are valid, agree with one another, and grant exactly what the code uses."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from knative_sponge.controller.admission.certificate import dns_names
from knative_sponge.controller.admission.rotation import CONFIGURATION
from knative_sponge.controller.admission.webhook import rules
from knative_sponge.controller.kube.resource import (
    ALL,
    LEASES,
    MUTATING_WEBHOOKS,
    SECRETS,
    VALIDATING_WEBHOOKS,
    Scope,
    Verb,
)
from knative_sponge.settings import ControllerSettings

MANIFESTS = Path(__file__).parent.parent.parent / "manifests"
BASE = MANIFESTS / "base"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
DEFAULTS = {field.name: field.default for field in fields(ControllerSettings)}
NAMESPACE = "knative-sponge"

Object = dict[str, Any]


def base() -> list[Object]:
    """All documents of the base, in the order of its kustomization."""
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return [item for name in listed for item in yaml.safe_load_all((BASE / name).read_text())]


def one(kind: str, name: str | None = None, namespace: str | None = None) -> Object:
    (found,) = (
        item
        for item in base()
        if item["kind"] == kind
        and name in (None, item["metadata"]["name"])
        and namespace in (None, item["metadata"].get("namespace"))
    )
    return found


def container() -> Object:
    (found,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def name_of(item: Object) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


@pytest.mark.parametrize("version", ["1.33", "1.34"])
@pytest.mark.parametrize("item", base(), ids=name_of)
def test_every_document_is_valid(item: Object, version: str) -> None:
    kubernetes_validate.validate(item, version, strict=True)


def test_every_file_is_in_the_kustomization() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in BASE.iterdir())


def test_everything_says_whose_it_is_so_that_it_can_be_found_and_removed() -> None:
    for item in base():
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == NAMESPACE, name_of(item)


def granted() -> Iterator[tuple[Scope, str, str, tuple[str, ...], Verb]]:
    """(how far, group, resource, names, verb) of every rule that is bound to the ServiceAccount."""
    scopes = {None: Scope.CLUSTER, NAMESPACE: Scope.OWN, DEFAULTS["system_namespace"]: Scope.SYSTEM}
    account = one("ServiceAccount")["metadata"]
    for binding in base():
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding"):
            continue
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
        namespace = binding["metadata"].get("namespace")
        role = one(binding["roleRef"]["kind"], binding["roleRef"]["name"], namespace)
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield scopes[namespace], group, resource, tuple(rule.get("resourceNames", ())), Verb(verb)


def test_the_roles_grant_what_the_code_declares_and_nothing_else() -> None:
    declared = Counter(
        (resource.scope, resource.group, str(resource), () if verb is Verb.CREATE else resource.names, verb)
        for resource in ALL
        for verb in resource.verbs
    )
    assert Counter(granted()) == declared


def test_names_that_the_roles_are_limited_to_are_the_settings() -> None:
    assert SECRETS.names == (DEFAULTS["cert_secret"], DEFAULTS["control_secret"])
    assert LEASES.names == (DEFAULTS["lease"],)
    for resource, kind in ((MUTATING_WEBHOOKS, "Mutating"), (VALIDATING_WEBHOOKS, "Validating")):
        assert resource.names == (CONFIGURATION,) == (one(f"{kind}WebhookConfiguration")["metadata"]["name"],)


def test_the_pod_is_as_restricted_as_its_namespace_asks() -> None:
    assert one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = one("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"volumes", "hostNetwork", "hostPID"} & set(pod)


def test_selectors_match_the_pods() -> None:
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [one("Service", name)["spec"]["selector"] for name in ("webhook", "autoscaler")]
    selectors += [one(kind)["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors.append(one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    (spread,) = one("Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors.append(spread["labelSelector"]["matchLabels"])
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


def test_ports_are_those_the_program_listens_on_and_all_let_in() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {name: DEFAULTS[f"{name}_port"] for name in ("webhook", "health", "metrics")}
    (webhook,) = one("Service", "webhook")["spec"]["ports"]
    assert (webhook["port"], ports[webhook["targetPort"]]) == (443, DEFAULTS["webhook_port"])
    (metrics,) = one("Service", "autoscaler")["spec"]["ports"]
    assert (metrics["port"], ports[metrics["targetPort"]]) == (9090, DEFAULTS["metrics_port"])
    policy = one("NetworkPolicy")["spec"]["ingress"]
    assert {entry["port"] for rule in policy for entry in rule["ports"]} == set(ports.values())


def test_the_metrics_are_let_out_to_who_collects_them_and_to_no_other_pod() -> None:
    """They name the revisions of all tenants. The API server and the kubelet come from addresses that no selector names."""
    open_ports, metrics = one("NetworkPolicy")["spec"]["ingress"]
    assert "from" not in open_ports
    assert {entry["port"] for entry in open_ports["ports"]} == {DEFAULTS["webhook_port"], DEFAULTS["health_port"]}
    assert [entry["port"] for entry in metrics["ports"]] == [DEFAULTS["metrics_port"]]
    namespaces = [place["namespaceSelector"]["matchLabels"] for place in metrics["from"]]
    assert namespaces == [{"kubernetes.io/metadata.name": "monitoring"}, {"knative-sponge.dev/metrics": "read"}]


def test_only_the_api_server_and_kubelets_are_reached_at_any_address() -> None:
    rules = one("NetworkPolicy")["spec"]["egress"]
    assert one("NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"]
    anywhere = {entry["port"] for rule in rules if "to" not in rule for entry in rule["ports"]}
    assert anywhere == {443, 6443, 8443, 16443, 10250}
    for rule in rules:
        for place in rule.get("to", ()):
            assert "ipBlock" in place or place.get("podSelector"), "a whole namespace is no destination"
            assert ip_network(place.get("ipBlock", {"cidr": "::/128"})["cidr"]).num_addresses == 1


def test_a_drain_leaves_a_replica_that_works_and_waits_for_none_that_does_not() -> None:
    budget = one("PodDisruptionBudget")["spec"]
    assert 0 < budget["minAvailable"] < one("Deployment")["spec"]["replicas"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_probes_ask_what_the_program_answers() -> None:
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container()[probe]["httpGet"] == {"path": path, "port": "health"}


def test_the_environment_is_complete() -> None:
    env = {entry["name"]: entry.get("value", "from the pod") for entry in container()["env"]}
    settings = ControllerSettings.from_env(env)
    assert settings.webhook_service == one("Service", "webhook")["metadata"]["name"]


def test_two_replicas_of_which_one_stays() -> None:
    deployment = one("Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert one("PodDisruptionBudget")["spec"]["minAvailable"] == 1


def webhooks() -> list[Object]:
    return [
        webhook
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
        for webhook in one(kind)["webhooks"]
    ]


def test_webhooks_call_the_paths_that_are_served() -> None:
    paths = [webhook["clientConfig"]["service"].pop("path") for webhook in webhooks()]
    assert sorted(paths) == sorted(rules("image", lambda _namespace, _cores: None))


@pytest.mark.parametrize("webhook", webhooks(), ids=lambda webhook: webhook["clientConfig"]["service"]["path"])
def test_a_webhook_never_stands_in_the_way(webhook: Object) -> None:
    assert webhook["failurePolicy"] == "Ignore"
    assert webhook["sideEffects"] == "None"
    assert webhook["timeoutSeconds"] == 5
    assert webhook["admissionReviewVersions"] == ["v1"]
    service = webhook["clientConfig"]["service"]
    assert (service["name"], service["namespace"], service["port"]) == (DEFAULTS["webhook_service"], NAMESPACE, 443)
    assert "caBundle" not in webhook["clientConfig"], "the controller writes it; an upgrade must not remove it"


def test_only_pods_of_revisions_are_reviewed_and_never_our_own() -> None:
    webhook = next(webhook for webhook in webhooks() if webhook["name"] == "pods.knative-sponge.dev")
    (rule,) = webhook["rules"]
    assert (rule["resources"], rule["operations"]) == (["pods"], ["CREATE"])
    assert webhook["objectSelector"]["matchExpressions"] == [
        {"key": "serving.knative.dev/revision", "operator": "Exists"}
    ]
    (expression,) = webhook["namespaceSelector"]["matchExpressions"]
    assert expression["operator"] == "NotIn"
    assert NAMESPACE in expression["values"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_names_both_images_and_only_what_exists(overlay: str) -> None:
    text = ""
    where = MANIFESTS / "overlays" / overlay
    while where != BASE:
        content = (where / "kustomization.yaml").read_text()
        found = yaml.safe_load(content)
        for patch in found["patches"]:
            patched = yaml.safe_load(patch["patch"])
            target = one(patch["target"]["kind"], patch["target"]["name"])
            assert patched["metadata"]["name"] == target["metadata"]["name"]
            assert patched["metadata"]["namespace"] == target["metadata"]["namespace"]
            names = [each["name"] for each in patched["spec"]["template"]["spec"]["containers"]]
            assert names == [container()["name"]]
        for image in found.get("images", ()):
            assert image["name"] == container()["image"]
        text += content
        where = (where / found["resources"][0]).resolve()
    assert "dev.local/knative-sponge/autoscaler" in text
    assert "dev.local/knative-sponge/queue-proxy:dev" in text


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders overlays")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_rendered_overlay_is_the_base_with_images(overlay: str) -> None:
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay)], capture_output=True, check=True, timeout=60
    )
    items = list(yaml.safe_load_all(rendered.stdout))
    assert sorted(map(name_of, items)) == sorted(map(name_of, base()))
    for item in items:
        kubernetes_validate.validate(item, "1.34", strict=True)
    images = set(re.findall(r"dev\.local/knative-sponge/[a-z-]+:dev", rendered.stdout.decode()))
    assert images == {"dev.local/knative-sponge/autoscaler:dev", "dev.local/knative-sponge/queue-proxy:dev"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders overlays")
def test_with_cert_manager_the_controller_may_change_no_webhook_configuration(tmp_path: Path) -> None:
    for folder in ("base", "components", "overlays"):
        shutil.copytree(MANIFESTS / folder, tmp_path / folder)
    mine = tmp_path / "overlays" / "mine"
    mine.mkdir()
    text = {"resources": ["../kind"], "components": ["../../components/cert-manager"]}
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(text))
    rendered = subprocess.run(["kubectl", "kustomize", str(mine)], capture_output=True, check=True, timeout=60)
    items = list(yaml.safe_load_all(rendered.stdout))
    certificates = [item for item in items if item["apiVersion"] == "cert-manager.io/v1"]
    assert {item["metadata"]["labels"]["app.kubernetes.io/part-of"] for item in certificates} == {NAMESPACE}
    assert len(items) == len(base()) + len(certificates)
    (serving,) = (item for item in certificates if item["spec"].get("secretName") == DEFAULTS["cert_secret"])
    assert serving["spec"]["dnsNames"] == list(dns_names(str(DEFAULTS["webhook_service"]), NAMESPACE))
    found = {name_of(item): item for item in items}
    for kind in ("Mutating", "Validating"):
        annotations = found[f"{kind}WebhookConfiguration knative-sponge"]["metadata"]["annotations"]
        assert annotations == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/{serving['metadata']['name']}"}
    (rule,) = (
        rule
        for rule in found["ClusterRole knative-sponge-autoscaler"]["rules"]
        if rule["apiGroups"] == ["admissionregistration.k8s.io"]
    )
    assert rule["verbs"] == ["get"]
    secrets = [rule for rule in found["Role autoscaler"]["rules"] if rule["resources"] == ["secrets"]]
    assert [(rule.get("resourceNames"), rule["verbs"]) for rule in secrets] == [
        (None, ["create"]),
        (["control-keys"], ["get", "update"]),
        (["webhook-certs"], ["get"]),
    ]
    (program,) = found["Deployment autoscaler"]["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value", "from the pod") for entry in program["env"]}
    assert ControllerSettings.from_env(env).cert_source == "external"
