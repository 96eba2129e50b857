"""The policies of admission fit the code and the roles. What they refuse is tested on a real API server (`e2e/tests_api`)."""

from __future__ import annotations

import re
from typing import Any

from knative_sponge.controller.annotations import CLASS, CLASS_ANNOTATION, REVISION_LABEL
from knative_sponge.controller.kube import events
from knative_sponge.controller.kube.resource import ALL, LEASES, PROFILES, SECRETS, Verb
from knative_sponge.settings.serving import PROXY
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
