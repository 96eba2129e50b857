"""The policies of admission fit the code and the roles, and refuse what they are there for. A real API server judges the same
in `e2e/tests_api`."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from knative_sponge.controller.annotations import CLASS, CLASS_ANNOTATION, REVISION_LABEL
from knative_sponge.controller.kube import events
from knative_sponge.controller.kube.resource import ALL, LEASES, PROFILES, SECRETS, Verb
from knative_sponge.settings.serving import PROXY
from tests.manifests.cel import judge
from tests.manifests.test_manifests import NAMESPACE, Object, base, one

WRITES = {Verb.CREATE: "CREATE", Verb.UPDATE: "UPDATE", Verb.PATCH: "UPDATE"}
UNCALLED = "podautoscalers/finalizers"
"""Never called; its update cannot change a PodAutoscaler."""


def policies() -> list[Object]:
    return [item for item in base() if item["kind"] == "ValidatingAdmissionPolicy"]


def policy(name: str) -> Any:
    return one("ValidatingAdmissionPolicy", f"knative-sponge-{name}")["spec"]


def text_of(name: str) -> str:
    return " ".join(validation["expression"] for validation in policy(name)["validations"])


def test_every_policy_is_in_force_and_about_the_service_account_alone() -> None:
    account = one("ServiceAccount")["metadata"]
    user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    bound = {item["spec"]["policyName"]: item["spec"] for item in base() if item["kind"].endswith("PolicyBinding")}
    assert bound.keys() == {item["metadata"]["name"] for item in policies()}
    assert all(spec == {"policyName": name, "validationActions": ["Deny"]} for name, spec in bound.items())
    for item in policies():
        assert item["spec"]["failurePolicy"] == "Fail", "what cannot be judged is refused"
        assert [one["expression"] for one in item["spec"]["matchConditions"]] == [
            f"request.userInfo.username == '{user}'"
        ]


def test_every_write_that_the_roles_allow_has_a_policy() -> None:
    covered = {
        (group, resource, operation)
        for item in policies()
        for rule in item["spec"]["matchConstraints"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }
    written = {(each.group, str(each), WRITES[verb]) for each in ALL for verb in each.verbs if verb in WRITES}
    assert {each for each in written if each[1] != UNCALLED} <= covered


def test_the_names_and_words_in_the_policies_are_those_of_the_code() -> None:
    (names,) = (one["expression"] for one in policy("own-objects")["variables"])
    found = {kind: re.findall(r"'([^']+)'", listed) for kind, listed in re.findall(r"'(\w+)': \[([^]]*)\]", names)}
    assert found == {each.plural: list(each.names) for each in (SECRETS, PROFILES, LEASES)}
    assert f"request.namespace == '{NAMESPACE}'" in text_of("own-objects")
    assert f"'{REVISION_LABEL}' in" in text_of("sizes")
    assert f"annotations['{PROXY}'] == 'sponge'" in text_of("sizes")
    assert f"annotations['{CLASS_ANNOTATION}'] == '{CLASS}'" in text_of("revisions")
    assert f"reportingController == '{events._CONTROLLER}'" in text_of("events")


def allowed(name: str, old: Any, new: Any, resource: str = "", namespace: str = NAMESPACE) -> bool:
    """Does the policy let the controller write `new` over `old`? None in place of `old` is a new object."""
    spec = policy(name)
    request = {
        "operation": "CREATE" if old is None else "UPDATE",
        "resource": {"resource": resource},
        "namespace": namespace,
    }
    names = {"object": new, "oldObject": old, "request": request, "variables": {}}
    try:
        for each in spec.get("variables", ()):
            names["variables"][each["name"]] = judge(each["expression"], names)
        return all(judge(each["expression"], names) for each in spec["validations"])
    except KeyError:  # an expression that cannot be judged refuses (`failurePolicy`)
        return False


def webhooks() -> Any:
    return one("MutatingWebhookConfiguration")


def changed(**more: Any) -> Any:
    """The webhook configuration with other fields in its first webhook."""
    found = copy.deepcopy(webhooks())
    found["webhooks"][0] |= more
    return found


def test_of_a_webhook_configuration_only_the_bundle_may_be_changed() -> None:
    before = webhooks()
    config = before["webhooks"][0]["clientConfig"]
    with_bundle = changed(clientConfig=config | {"caBundle": "a"})
    assert allowed("webhooks", before, with_bundle)
    assert allowed("webhooks", with_bundle, changed(clientConfig=config | {"caBundle": "b"}))
    assert allowed("webhooks", before, before | {"metadata": before["metadata"] | {"resourceVersion": "7"}})
    assert not allowed("webhooks", None, before)
    for more in ({"labels": {"x": "y"}}, {"annotations": {"x": "y"}}, {"finalizers": ["x.dev/y"]}):
        assert not allowed("webhooks", before, before | {"metadata": before["metadata"] | more}), more
    assert not allowed("webhooks", before, before | {"metadata": {"name": before["metadata"]["name"]}})


@pytest.mark.parametrize(
    "more",
    [
        {"clientConfig": {"url": "https://thief.example/"}},
        {"clientConfig": {"service": {"namespace": "thief", "name": "webhook"}}},
        {"clientConfig": {"caBundle": "a"}},
        {"failurePolicy": "Fail"},
        {"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]},
        {"namespaceSelector": {"matchLabels": {"a": "b"}}},
        {"matchConditions": [{"name": "x", "expression": "true"}]},
        {"a field of later versions": 1},
        {"name": "more.knative-sponge.dev"},
    ],
    ids=lambda more: str(more)[:50],
)
def test_no_other_field_of_a_webhook_may_be_changed(more: dict[str, Any]) -> None:
    before = webhooks()
    assert not allowed("webhooks", before, changed(**more))
    added = before | {
        "webhooks": [*before["webhooks"], before["webhooks"][0] | {"name": "more.knative-sponge.dev"} | more]
    }
    assert not allowed("webhooks", before, added)
    assert not allowed("webhooks", added, before)
    field = next(iter(more))
    without = copy.deepcopy(before)
    if without["webhooks"][0].pop(field, None) is not None:
        assert not allowed("webhooks", before, without)


def test_what_is_written_is_ours_by_name_class_owner_or_label() -> None:
    def secret(name: str, kind: str = "Opaque") -> Object:
        return {"metadata": {"name": name}, "type": kind}

    assert allowed("own-objects", None, secret("control-keys"), "secrets")
    assert not allowed("own-objects", None, secret("control-keys"), "secrets", "kube-system")
    assert not allowed("own-objects", None, secret("another"), "secrets")
    assert not allowed("own-objects", None, secret("control-keys", "kubernetes.io/service-account-token"), "secrets")
    assert not allowed("own-objects", None, secret("control-keys"), "configmaps")

    ours = {"metadata": {"labels": {REVISION_LABEL: "r"}, "annotations": {PROXY: "sponge"}}}
    assert allowed("sizes", ours, ours)
    assert not allowed("sizes", {"metadata": {}}, ours)
    lacking: list[Any] = [{"labels": {}}, {"annotations": {PROXY: "stock"}}, {"annotations": {}}]
    for less in lacking:
        assert not allowed("sizes", {"metadata": ours["metadata"] | less}, ours), less

    assert allowed("pod-counts", {"status": {"selector": f"{REVISION_LABEL}=r"}}, {})
    assert not allowed("pod-counts", {"status": {}}, {})
    assert not allowed("pod-counts", {"status": {"selector": "app=others"}}, {})

    metadata: Any = {"name": "r", "annotations": {CLASS_ANNOTATION: CLASS}}
    owner = {"kind": "PodAutoscaler", "name": "r"}
    owned = {"metadata": metadata | {"ownerReferences": [owner]}}
    foreign = {"metadata": metadata | {"annotations": {CLASS_ANNOTATION: "kpa.autoscaling.knative.dev"}}}
    assert allowed("revisions", {"metadata": metadata}, {"metadata": metadata}, "podautoscalers")
    assert not allowed("revisions", foreign, {"metadata": metadata}, "podautoscalers")
    assert not allowed("revisions", {"metadata": {"name": "r"}}, {"metadata": metadata}, "podautoscalers")
    assert allowed("revisions", None, owned, "serverlessservices")
    assert not allowed("revisions", None, {"metadata": metadata}, "serverlessservices")
    for other in ({"kind": "Pod"}, {"name": "q"}):
        stolen = {"metadata": metadata | {"ownerReferences": [owner | other]}}
        assert not allowed("revisions", None, stolen, "serverlessservices"), other

    mine, others = {"reportingController": events._CONTROLLER}, {"reportingController": "kubelet"}
    assert allowed("events", None, mine)
    assert allowed("events", mine, mine)
    assert not allowed("events", None, others)
    assert not allowed("events", others, mine)
