"""Keeps the webhook's certificates valid: the Secret, and the authorities that the API server trusts. Leader only.

It checks both periodically instead of planning ahead, so that it repairs whatever somebody else wrote or removed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from knative_sponge.controller.admission.certificate import (
    CertificateError,
    Certificates,
    Due,
    dns_names,
    due,
    make,
    renew,
)
from knative_sponge.controller.kube.client import Patch
from knative_sponge.controller.kube.resource import MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS, Object, Resource
from knative_sponge.controller.quarantine import Failures
from knative_sponge.errors import KubeError, KubeNotFound
from knative_sponge.settings.controller import ControllerSettings

CONFIGURATION: Final = "knative-sponge"
"""Name of both webhook configurations."""
CHECK_S: Final = 15.0
"""Time between two checks."""
_RETRY_S: Final = 2.0
"""Time to the next check after a call that failed or lost a race."""

log = logging.getLogger(__name__)


class SecretReader(Protocol):
    """The calls to the API server that every replica needs. Raises KubeError."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...


class SecretKeeper(SecretReader, Protocol):
    """The calls that the leader needs. `kube.client.Kube` has all of them."""

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object: ...

    async def replace(self, resource: Resource, body: Object, namespace: str | None = None) -> Object: ...

    async def patch(
        self, resource: Resource, name: str, body: Object, namespace: str | None = None, *, kind: Patch = Patch.MERGE
    ) -> Object: ...


class SecretSource:
    """The stored certificates, for every replica's webhook. They are read by API: a mounted Secret lags by a minute."""

    def __init__(self, kube: SecretReader, settings: ControllerSettings) -> None:
        self._kube = kube
        self._settings = settings

    async def read(self) -> Certificates | None:
        """None when there is no Secret yet. Raises KubeError, CertificateError."""
        try:
            secret = await self._kube.get(SECRETS, self._settings.cert_secret, self._settings.namespace)
        except KubeNotFound:
            return None
        if self._settings.cert_source == "external":
            return Certificates.from_serving(_decoded(secret))
        return Certificates.from_secret(_decoded(secret))


class Rotation:
    """Creates the Secret, renews what is due in it, and writes its authorities into both webhook configurations.

    The serving certificate is not renewed within CHECK_S after the trusted authorities changed: every API server must have
    seen a new authority before a certificate that it signed is served.
    """

    def __init__(
        self,
        kube: SecretKeeper,
        settings: ControllerSettings,
        *,
        now: Callable[[], float] = time.time,
        failures: Failures | None = None,
    ) -> None:
        """now: wall clock in Unix seconds. failures: where a check that fails is reported."""
        self._steps = (failures or Failures()).of("certificates", CHECK_S)
        self._kube = kube
        self._settings = settings
        self._now = now
        self._names = dns_names(settings.webhook_service, settings.namespace)
        self._trusted_at = now() + CHECK_S  # an earlier leader may have changed them just now

    async def run(self) -> None:
        """Until cancelled. A call that fails is logged and tried again."""
        while True:
            wait_s = CHECK_S
            try:
                await self.check()
            except KubeError as error:
                log.warning("webhook certificates: %s; trying again", error)
                wait_s = _RETRY_S
            except Exception as error:
                # What nobody expected in a Secret must not end the leader, nor the next one.
                self._steps.failed(self._settings.cert_secret, error)
            await asyncio.sleep(wait_s)

    async def check(self) -> None:
        """Check once: first the Secret, then the trust in it. Raises KubeError, also for a lost race."""
        certificates = await self._keep_secret()
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            await self._keep_trust(resource, certificates.authorities)

    async def _keep_secret(self) -> Certificates:
        settings = self._settings
        try:
            secret = await self._kube.get(SECRETS, settings.cert_secret, settings.namespace)
        except KubeNotFound:
            made = make(self._names, settings.cert_lifetime_s, self._now())
            await self._kube.create(SECRETS, self._secret(made), settings.namespace)
            log.info("webhook certificates: made")
            return made
        try:
            stored = Certificates.from_secret(_decoded(secret))
            what = due(stored, self._names, settings.cert_renew_share, self._now())
            if what is Due.NOTHING or (what is Due.SERVING and self._now() < self._trusted_at):
                return stored
            renewed = renew(stored, what, self._names, settings.cert_lifetime_s, self._now())
        except CertificateError as error:
            log.warning("webhook certificates: the stored ones cannot be used (%s); making all anew", error)
            what, renewed = Due.ALL, make(self._names, settings.cert_lifetime_s, self._now())
        data = _encoded(renewed.to_secret())
        await self._kube.replace(
            SECRETS, {**secret, "data": {**(secret.get("data") or {}), **data}}, settings.namespace
        )
        log.info("webhook certificates: renewed (%s)", what)
        return renewed

    async def _keep_trust(self, resource: Resource, authorities: bytes) -> None:
        try:
            configuration = await self._kube.get(resource, CONFIGURATION)
        except KubeNotFound:
            log.warning("webhook certificates: there is no %s %s; nothing calls the webhook", resource, CONFIGURATION)
            return
        bundle = base64.b64encode(authorities).decode()
        stale = [
            webhook["name"]
            for webhook in configuration.get("webhooks") or ()
            if (webhook.get("clientConfig") or {}).get("caBundle") != bundle
        ]
        if not stale:
            return
        webhooks = [{"name": name, "clientConfig": {"caBundle": bundle}} for name in stale]
        await self._kube.patch(resource, CONFIGURATION, {"webhooks": webhooks}, kind=Patch.STRATEGIC)
        self._trusted_at = self._now() + CHECK_S
        log.info("webhook certificates: %s now trusts them (%s)", resource, ", ".join(stale))

    def _secret(self, certificates: Certificates) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self._settings.cert_secret,
                "namespace": self._settings.namespace,
                "labels": {"app.kubernetes.io/part-of": "knative-sponge"},
            },
            "type": "Opaque",
            "data": _encoded(certificates.to_secret()),
        }


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


def _decoded(secret: Mapping[str, Any]) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}
    except (binascii.Error, TypeError) as error:
        raise CertificateError("not base64") from error
