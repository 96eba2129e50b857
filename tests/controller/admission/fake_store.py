"""An API server with one Secret and two webhook configurations, as far as certificates need one."""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Callable
from typing import Any

from knative_sponge.controller.admission.certificate import Certificates
from knative_sponge.controller.kube.client import Patch
from knative_sponge.controller.kube.resource import MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS, Resource
from knative_sponge.errors import KubeConflict, KubeError, KubeNotFound
from knative_sponge.settings.controller import ControllerSettings

SETTINGS = ControllerSettings(
    pod="autoscaler-0", namespace="knative-sponge", proxy_image="dev.local/queue-proxy:dev", webhook_port=0
)
SECRET = (SECRETS.plural, "knative-sponge", "webhook-certs")
MUTATING = (MUTATING_WEBHOOKS.plural, None, "knative-sponge")
VALIDATING = (VALIDATING_WEBHOOKS.plural, None, "knative-sponge")


def configuration(*webhooks: str) -> dict[str, Any]:
    service = {"name": "webhook", "namespace": "knative-sponge", "path": "/x"}
    return {
        "metadata": {"name": "knative-sponge", "resourceVersion": "1"},
        "webhooks": [{"name": name, "clientConfig": {"service": dict(service)}} for name in webhooks],
    }


class FakeStore:
    """Objects by (plural, namespace, name). before: called ahead of every call, may change or refuse it."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str | None, str], dict[str, Any]] = {
            MUTATING: configuration("pods.knative-sponge.dev", "services.knative-sponge.dev"),
            VALIDATING: configuration("services.knative-sponge.dev"),
        }
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda verb, plural: None

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] != "get"]

    @property
    def certificates(self) -> Certificates:
        return Certificates.from_secret(
            {name: base64.b64decode(value) for name, value in self.objects[SECRET]["data"].items()}
        )

    @property
    def bundles(self) -> set[bytes]:
        """What the API server trusts, over all webhooks."""
        return {
            base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
            for key in (MUTATING, VALIDATING)
            for webhook in self.objects[key]["webhooks"]
        }

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        return copy.deepcopy(await self._found("get", resource, name, namespace))

    async def create(self, resource: Resource, body: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
        await self._begin("create", resource)
        key = (resource.plural, namespace, body["metadata"]["name"])
        if key in self.objects:
            raise KubeConflict("exists", status=409, reason="AlreadyExists")
        self.objects[key] = copy.deepcopy(body)
        self.objects[key]["metadata"]["resourceVersion"] = "1"
        return copy.deepcopy(self.objects[key])

    async def replace(self, resource: Resource, body: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
        found = await self._found("replace", resource, body["metadata"]["name"], namespace)
        version = found["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            raise KubeConflict("changed meanwhile", status=409, reason="Conflict")
        found.clear()
        found.update(copy.deepcopy(body))
        found["metadata"]["resourceVersion"] = str(int(version) + 1)
        return copy.deepcopy(found)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: dict[str, Any],
        namespace: str | None = None,
        *,
        kind: Patch = Patch.MERGE,
    ) -> dict[str, Any]:
        found = await self._found("patch", resource, name, namespace)
        assert kind is Patch.STRATEGIC
        assert set(body) == {"webhooks"}
        for change in body["webhooks"]:
            (webhook,) = (one for one in found["webhooks"] if one["name"] == change["name"])
            webhook["clientConfig"] |= change["clientConfig"]
        return copy.deepcopy(found)

    async def _found(self, verb: str, resource: Resource, name: str, namespace: str | None) -> dict[str, Any]:
        await self._begin(verb, resource)
        try:
            return self.objects[resource.plural, namespace, name]
        except KeyError:
            raise KubeNotFound(name, status=404) from None

    async def _begin(self, verb: str, resource: Resource) -> None:
        await asyncio.sleep(0)
        self.calls.append((verb, resource.plural))
        self.before(verb, resource.plural)


def failing(times: int) -> Callable[[str, str], None]:
    """The next calls, so many, are refused."""
    left = [times]

    def before(verb: str, plural: str) -> None:
        if left[0]:
            left[0] -= 1
            raise KubeError("not now", status=500)

    return before
