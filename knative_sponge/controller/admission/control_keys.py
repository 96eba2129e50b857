"""The keys of the pods' control tokens: every replica reads them from their Secret, the leader makes and renews them.

What a key is for is in `controller/cluster/control_token.py`. No key and no token is logged here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any, Final

from knative_sponge.controller.admission.rotation import SecretKeeper, SecretReader
from knative_sponge.controller.cluster.control_token import KEY_BYTES, Control, KeyRing, sized_nonce
from knative_sponge.controller.kube.resource import SECRETS, Object
from knative_sponge.controller.quarantine import Failures
from knative_sponge.errors import KubeError, KubeNotFound
from knative_sponge.settings.controller import ControllerSettings

READ_S: Final = 10.0
"""Time between two reads of a replica."""
ABSENT_S: Final = 1.0
"""The same while it has no key, or after a pod has named one that it does not know."""
PATIENCE_S: Final = 60.0
"""A replica that has no key for so long is ready without: a pod that nobody can resize serves better than Knative's own."""
CHECK_S: Final = 15.0
SUCCEEDED_S: Final = 3600.0
"""A key that no pod names is kept for so long after the next one was made: some replica may not have read that yet."""

log = logging.getLogger(__name__)


class ControlKeys:
    """The keys as last read, on every replica. One that is gone stays known until another is read."""

    def __init__(
        self,
        kube: SecretReader,
        settings: ControllerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        failures: Failures | None = None,
    ) -> None:
        """clock: monotonic seconds. failures: where a read that fails is reported."""
        self._steps = (failures or Failures()).of("control keys as read", ABSENT_S)
        self._kube = kube
        self._settings = settings
        self._clock = clock
        self._since_s = clock()
        self._ring = KeyRing()
        self._woken = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def ready(self) -> bool:
        """May pods be admitted here? There is a key, or none came for PATIENCE_S."""
        return self._ring.newest is not None or self._clock() - self._since_s >= PATIENCE_S

    def mint(self, namespace: str, cores: float) -> Control | None:
        """What a new pod of this namespace carries that starts with so many cores; None while there is no key: its control
        routes stay closed."""
        control = self._ring.mint(namespace, sized_nonce(cores, secrets.token_urlsafe(24)))
        if control is None:
            self._woken.set()
            log.warning("a pod in %s is admitted without a control key: it keeps the size it starts with", namespace)
        return control

    def admitted(self, namespace: str, reference: str, digest: str) -> float:
        """See `KeyRing.admitted`."""
        return self._ring.admitted(namespace, reference, digest)

    def token(self, namespace: str, reference: str) -> str:
        """The token of a pod of this namespace; empty where its key is not known, which is looked for."""
        found = self._ring.token(namespace, reference)
        if found is None:
            self._woken.set()
        return found or ""

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` whenever other keys are known. Returns what ends that."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    async def run(self) -> None:
        """Read until cancelled. A call that fails is tried again; the first of several failures is logged."""
        failing = False
        while True:
            try:
                await self.read()
                failing = False
            except KubeError as error:
                if not failing:
                    log.warning("control keys cannot be read, the last ones are used: %s", error)
                failing = True
            except Exception as error:
                self._steps.failed("a-read", error)
            await asyncio.sleep(ABSENT_S)
            if self._ring.newest is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READ_S - ABSENT_S):
                        await self._woken.wait()
            self._woken.clear()

    async def read(self) -> None:
        """Read now. Raises KubeError."""
        try:
            secret = await self._kube.get(SECRETS, self._settings.control_secret, self._settings.namespace)
        except KubeNotFound:
            return
        if (ring := ring_of(secret)) != self._ring:
            self._ring = ring
            for changed in self._listeners:
                changed()


class KeyRotation:
    """Makes the first key, a new one when the newest is old, and removes those that nobody needs. Leader only.

    Like `Rotation` it checks periodically instead of planning ahead, so it repairs whatever somebody else wrote or removed.
    """

    def __init__(
        self,
        kube: SecretKeeper,
        settings: ControllerSettings,
        used: Callable[[], Collection[int] | None],
        *,
        now: Callable[[], float] = time.time,
        failures: Failures | None = None,
    ) -> None:
        """used: the keys that pods name; None while not all pods are known. now: wall clock in Unix seconds. failures: where a
        check that fails is reported."""
        self._steps = (failures or Failures()).of("control keys", CHECK_S)
        self._kube = kube
        self._settings = settings
        self._used = used
        self._now = now

    async def run(self) -> None:
        """Until cancelled. A call that fails is logged and tried again."""
        while True:
            try:
                await self.check()
            except KubeError as error:
                log.warning("control keys: %s; trying again", error)
            except Exception as error:
                self._steps.failed(self._settings.control_secret, error)
            await asyncio.sleep(CHECK_S)

    async def check(self) -> None:
        """Check once. Raises KubeError, also for a lost race."""
        settings, now = self._settings, int(self._now())
        try:
            secret = await self._kube.get(SECRETS, settings.control_secret, settings.namespace)
        except KubeNotFound:
            made = {now: secrets.token_bytes(KEY_BYTES)}
            await self._kube.create(SECRETS, self._secret(made), settings.namespace)
            log.info("control keys: made the first one")
            return
        keys = dict(ring_of(secret).keys)
        newest = max(keys, default=None)
        if newest is None or now - newest >= settings.control_key_lifetime_s:
            keys[now] = secrets.token_bytes(KEY_BYTES)
        for key in self._superfluous(keys, now):
            del keys[key]
        if _encoded(keys) != secret.get("data"):
            await self._kube.replace(SECRETS, {**secret, "data": _encoded(keys)}, settings.namespace)
            log.info("control keys: now %d, the newest made at %d", len(keys), max(keys))

    def _superfluous(self, keys: Mapping[int, bytes], now: int) -> list[int]:
        ages = sorted(keys)
        old = [key for key, successor in pairwise(ages) if now - successor >= SUCCEEDED_S]
        used = self._used() if old else None
        return [] if used is None else [key for key in old if key not in used]

    def _secret(self, keys: Mapping[int, bytes]) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self._settings.control_secret,
                "namespace": self._settings.namespace,
                "labels": {"app.kubernetes.io/part-of": "knative-sponge"},
            },
            "type": "Opaque",
            "data": _encoded(keys),
        }


def ring_of(secret: Mapping[str, Any]) -> KeyRing:
    """The keys in a Secret: entries named by the Unix second in which they were made. Others are passed over."""
    keys: dict[int, bytes] = {}
    for name, text in (secret.get("data") or {}).items():
        with contextlib.suppress(binascii.Error, ValueError, TypeError):
            if name.isascii() and name.isdecimal() and len(name) <= 12:
                value = base64.b64decode(text)
                if len(value) == KEY_BYTES:
                    keys[int(name)] = value
    return KeyRing(keys)


def _encoded(keys: Mapping[int, bytes]) -> dict[str, str]:
    return {str(made): base64.b64encode(key).decode() for made, key in sorted(keys.items())}
