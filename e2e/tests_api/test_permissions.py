"""What the manifests let the controller do, by the real authorizer's own word: all that resource.py lists, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import pytest

from e2e.api.client import Client, Object
from e2e.api.faulty import Call
from e2e.api.replica import ACCOUNT, NAMESPACE, SYSTEM, is_listed
from e2e.api.server import Server
from knative_sponge.controller.kube.resource import ALL, Resource, Scope, Verb

Right = tuple[str, str, str, str]
"""Verb, group, resource and name; an empty name is all names."""
Asked = tuple[str, str, dict[str, str]]
"""Method, path and query of a call."""

_ELSEWHERE = "default"
_VERBS = (*(str(verb) for verb in Verb), "delete", "deletecollection")
_WITHIN = {NAMESPACE: (Scope.CLUSTER, Scope.OWN), SYSTEM: (Scope.CLUSTER, Scope.SYSTEM), _ELSEWHERE: (Scope.CLUSTER,)}


def _listed(scopes: Iterable[Scope]) -> set[Right]:
    return {
        (str(verb), one.group, str(one), name)
        for one in ALL
        if one.scope in scopes
        for verb in one.verbs
        for name in _names(one, verb)
    }


def _names(resource: Resource, verb: Verb) -> tuple[str, ...]:
    return ("",) if verb is Verb.CREATE or not resource.names else resource.names


async def _granted(client: Client, namespace: str) -> set[Right]:
    """What the server says that the client's user may do there."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    answer = await client("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body)
    assert not answer["status"]["incomplete"]
    return {right for rule in answer["status"]["resourceRules"] for right in _rights(rule)} | {
        (verb, "", path, "")
        for rule in answer["status"]["nonResourceRules"]
        for verb in rule["verbs"]
        for path in rule["nonResourceURLs"]
    }


def _rights(rule: Object) -> Iterator[Right]:
    for verb in rule["verbs"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames") or ("",):
                    yield verb, group, resource, name


async def _may(client: Client, right: tuple[str, ...], namespace: str) -> bool:
    verb, group, resource, name = right
    plural, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
        "name": name,
        "namespace": namespace,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await client("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize("namespace", _WITHIN)
def test_the_service_account_may_do_what_is_listed_and_no_more(server: Server, namespace: str) -> None:
    async def body() -> None:
        async with Client(server.url, server.trust(admin=True)) as admin:
            anybody = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "anybody", "namespace": namespace},
            }
            await admin("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", anybody)
            tokens = await admin.token(NAMESPACE, ACCOUNT), await admin.token(namespace, "anybody")
        async with (
            Client(server.url, server.trust(admin=False), tokens[0]) as ours,
            Client(server.url, server.trust(admin=False), tokens[1]) as anyones,
        ):
            listed = _listed(_WITHIN[namespace])
            assert await _granted(ours, namespace) - await _granted(anyones, namespace) == listed
            # Each right on its own, and every one beside it: other verbs, other names, listed only for elsewhere.
            everywhere = _listed(Scope)
            beside = {(verb, *rest) for _, *rest in everywhere for verb in _VERBS}
            beside |= {(verb, group, resource, "another") for verb, group, resource, _ in beside}
            for right in sorted(everywhere | beside):
                expected = right in listed or (*right[:3], "") in listed
                assert await _may(ours, right, namespace) == expected, right

    asyncio.run(body())


LISTED: tuple[Asked, ...] = (
    ("GET", "/api/v1/pods", {"watch": "true"}),
    ("PATCH", "/api/v1/namespaces/default/pods/a/resize", {}),
    ("GET", f"/api/v1/namespaces/{SYSTEM}/configmaps", {"fieldSelector": "metadata.name=config-autoscaler"}),
    ("PUT", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/autoscaler", {}),
)
UNLISTED: tuple[Asked, ...] = (
    ("PATCH", "/api/v1/namespaces/default/pods/a", {}),
    ("DELETE", "/api/v1/namespaces/default/pods/a", {}),
    ("GET", "/api/v1/namespaces/default/pods/a", {}),
    ("GET", f"/api/v1/namespaces/{SYSTEM}/configmaps", {}),
    ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/another", {}),
    ("PUT", f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/autoscaler", {}),
)


@pytest.mark.parametrize(("method", "path", "query"), [*LISTED, *UNLISTED])
def test_calls_of_a_replica_are_told_from_calls_that_are_not_listed(
    method: str, path: str, query: dict[str, str]
) -> None:
    assert is_listed(Call(0.0, method, path, query, None)) == ((method, path, query) in LISTED)
