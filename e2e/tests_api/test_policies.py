"""What whoever has the controller's token cannot do, though RBAC allows the verb: the policies, by the real API server."""

from __future__ import annotations

import asyncio
import base64
import copy
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from e2e.api.client import MERGE, Client, Object, RefusedError
from e2e.api.node import REVISION, a_node, pod_of
from e2e.api.replica import ACCOUNT, NAMESPACE
from e2e.api.server import Server
from knative_sponge.controller.admission.certificate import make

STRATEGIC: Final = "application/strategic-merge-patch+json"
_WEBHOOKS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/knative-sponge"
_BUNDLE: Final = base64.b64encode(make(("webhook.knative-sponge.svc",), 3600.0, time.time()).authorities).decode()
_SECRETS: Final = f"/api/v1/namespaces/{NAMESPACE}/secrets"
_CONFIG_MAPS: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
_EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/default/events"
_SERVICES: Final = "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/serverlessservices"
_IN_FORCE_S: Final = 15.0
"""A policy is in force on an API server soon after it was stored, not with it."""


@asynccontextmanager
async def users(server: Server) -> AsyncIterator[tuple[Client, Client]]:
    """The administrator and whoever has the controller's token, once the policies are in force."""
    async with Client(server.url, server.trust(admin=True)) as admin:
        token = await admin.token(NAMESPACE, ACCOUNT)
        async with Client(server.url, server.trust(admin=False), token) as thief:
            async with asyncio.timeout(_IN_FORCE_S):
                while not await denied(thief, "POST", _CONFIG_MAPS, config_map("probe")):
                    await admin("DELETE", f"{_CONFIG_MAPS}/probe")
                    await asyncio.sleep(0.2)
            yield admin, thief


async def denied(client: Client, method: str, path: str, body: Object, kind: str = "application/json") -> bool:
    """Does a policy of ours refuse it? What else refuses it is an error."""
    try:
        await client(method, path, body, kind)
    except RefusedError as error:
        if "ValidatingAdmissionPolicy 'knative-sponge-" not in str(error):
            raise
        return True
    return False


def config_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}}


def secret(name: str, kind: str = "Opaque", **metadata: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
    }


def test_of_the_webhooks_only_the_bundle_can_be_changed(server: Server) -> None:
    async def body() -> None:
        async with users(server) as (admin, thief):
            before = await admin("GET", _WEBHOOKS)
            names = [webhook["name"] for webhook in before["webhooks"]]
            bundles = [{"name": name, "clientConfig": {"caBundle": _BUNDLE}} for name in names]
            await thief("PATCH", _WEBHOOKS, {"webhooks": bundles}, STRATEGIC)
            now = await admin("GET", _WEBHOOKS)
            assert {webhook["clientConfig"]["caBundle"] for webhook in now["webhooks"]} == {_BUNDLE}
            changes: list[Object] = [
                {"clientConfig": {"url": "https://thief.example/", "service": None}},
                {"clientConfig": {"service": {"namespace": "thief", "name": "webhook"}}},
                {"clientConfig": {"service": {"path": "/mutate/services"}}},
                {"failurePolicy": "Fail"},
                {"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]},
                {"namespaceSelector": {"matchLabels": {"a": "b"}}},
                {"objectSelector": {"matchExpressions": None}},
                {"timeoutSeconds": 30},
                {"matchConditions": [{"name": "x", "expression": "true"}]},
                {"reinvocationPolicy": "Never"},
            ]
            patch: Object
            for change in changes:
                patch = {"webhooks": [{"name": names[0], **change}]}
                assert await denied(thief, "PATCH", _WEBHOOKS, patch, STRATEGIC), change
            more = copy.deepcopy(now["webhooks"][0]) | {"name": "more.knative-sponge.dev"}
            for webhooks in ([more], [{"name": names[0], "$patch": "delete"}]):
                patch = {"webhooks": webhooks}
                assert await denied(thief, "PATCH", _WEBHOOKS, patch, STRATEGIC), webhooks
            marks: list[Object] = [{"labels": {"x": "y"}}, {"annotations": {"x": "y"}}, {"finalizers": ["x.dev/y"]}]
            for metadata in marks:
                patch = {"metadata": metadata}
                assert await denied(thief, "PATCH", _WEBHOOKS, patch, MERGE), metadata
            # Others are not held to it.
            await admin("PATCH", _WEBHOOKS, {"webhooks": [{"name": names[0], "timeoutSeconds": 6}]}, STRATEGIC)
            await admin("PATCH", _WEBHOOKS, {"webhooks": [{"name": names[0], "timeoutSeconds": 5}]}, STRATEGIC)

    asyncio.run(body())


def test_only_its_own_objects_can_be_made(server: Server) -> None:
    async def body() -> None:
        async with users(server) as (admin, thief):
            for name in ("webhook-certs", "control-keys"):
                with suppress(RefusedError):  # a leader of another test may have left its own
                    await admin("DELETE", f"{_SECRETS}/{name}")
                await thief("POST", _SECRETS, secret(name))
                await admin("DELETE", f"{_SECRETS}/{name}")
            account = {"kubernetes.io/service-account.name": ACCOUNT}
            token = secret("control-keys", "kubernetes.io/service-account-token", annotations=account)
            for one in (secret("another"), token):
                assert await denied(thief, "POST", _SECRETS, one), one
            assert await denied(thief, "POST", _CONFIG_MAPS, config_map("another"))
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "another"}}
            leases = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
            assert await denied(thief, "POST", leases, lease)

    asyncio.run(body())


def test_only_pods_with_our_proxy_can_be_resized(server: Server) -> None:
    async def body() -> None:
        async with users(server) as (admin, thief), a_node(admin, 4.0) as node:
            await node.put(pod_of(0.5), "ours", "127.0.1.90")
            stranger = pod_of(0.5)
            stranger["metadata"]["annotations"]["knative-sponge.dev/proxy"] = "stock"
            await node.put(stranger, "stranger", "127.0.1.91")
            resources = {"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}}
            patch = {"spec": {"containers": [{"name": "user-container", "resources": resources}]}}
            pods = "/api/v1/namespaces/default/pods"
            await thief("PATCH", f"{pods}/ours/resize", patch, STRATEGIC)
            assert await denied(thief, "PATCH", f"{pods}/stranger/resize", patch, STRATEGIC)

    asyncio.run(body())


def deployment(name: str, selector: str) -> Object:
    template = {"metadata": {"labels": {selector: "x"}}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {selector: "x"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_only_deployments_of_revisions_can_be_scaled(server: Server) -> None:
    async def body() -> None:
        async with users(server) as (admin, thief):
            deployments = "/apis/apps/v1/namespaces/default/deployments"
            selectors = {"of-a-revision": "serving.knative.dev/revisionUID", "of-a-stranger": "app"}
            for name, selector in selectors.items():
                await admin("POST", deployments, deployment(name, selector))
            try:
                patch = {"spec": {"replicas": 0}}
                await thief("PATCH", f"{deployments}/of-a-revision/scale", patch, MERGE)
                assert await denied(thief, "PATCH", f"{deployments}/of-a-stranger/scale", patch, MERGE)
            finally:
                for name in selectors:
                    await admin("DELETE", f"{deployments}/{name}")

    asyncio.run(body())


def serverless_service(name: str, kind: str, owner: str = "PodAutoscaler") -> Object:
    reference = {"apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": owner, "name": name, "uid": "u"}
    annotations = {"autoscaling.knative.dev/class": kind}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "ServerlessService",
        "metadata": {"name": name, "annotations": annotations, "ownerReferences": [reference]},
        "spec": {"mode": "Serve", "protocolType": "http1", "objectRef": target},
    }


def test_only_routes_of_our_class_can_be_written(server: Server) -> None:
    async def body() -> None:
        async with users(server) as (admin, thief):
            ours, stock = "sponge.knative-sponge.dev", "kpa.autoscaling.knative.dev"
            await thief("POST", _SERVICES, serverless_service("ours", ours))
            await admin("POST", _SERVICES, serverless_service("stock", stock))
            try:
                for one in (serverless_service("more", stock), serverless_service("more", ours, "Service")):
                    assert await denied(thief, "POST", _SERVICES, one), one
                await thief("PATCH", f"{_SERVICES}/ours", {"spec": {"mode": "Proxy"}}, MERGE)
                claim = {
                    "metadata": {"annotations": {"autoscaling.knative.dev/class": ours}},
                    "spec": {"mode": "Proxy"},
                }
                assert await denied(thief, "PATCH", f"{_SERVICES}/stock", claim, MERGE)
            finally:
                for name in ("ours", "stock"):
                    await admin("DELETE", f"{_SERVICES}/{name}")

    asyncio.run(body())


def event(controller: str) -> Object:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-11-22T08:09:44.000000Z",
        "type": "Normal",
        "action": "Test",
        "reason": "Tested",
        "regarding": {"kind": "Revision", "namespace": "default", "name": REVISION},
        "reportingController": controller,
        "reportingInstance": "autoscaler-0",
    }


def test_no_event_can_be_written_in_the_name_of_others(server: Server) -> None:
    async def body() -> None:
        async with users(server) as (admin, thief):
            await thief("POST", _EVENTS, event("knative-sponge.dev/autoscaler"))
            await admin("DELETE", f"{_EVENTS}/e")
            assert await denied(thief, "POST", _EVENTS, event("kubelet"))

    asyncio.run(body())
