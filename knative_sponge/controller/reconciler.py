"""Carries out what `decision` decides for each PodAutoscaler of our class, whenever something it rests on changes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from knative_sponge.controller.annotations import REVISION_LABEL
from knative_sponge.controller.decision import (
    ChangeService,
    CreateService,
    Look,
    LookAgain,
    SetReplicas,
    Write,
    WriteStatus,
    decide,
    ours,
)
from knative_sponge.controller.informer import key_of
from knative_sponge.controller.kube import NAMESPACE_TERMINATING, Kube
from knative_sponge.controller.metrics import Metrics
from knative_sponge.controller.resource import (
    DEPLOYMENT_SCALE,
    POD_AUTOSCALER_STATUS,
    SERVERLESS_SERVICES,
    Key,
    Object,
)
from knative_sponge.controller.watches import Watches
from knative_sponge.controller.workqueue import WorkQueue
from knative_sponge.errors import KubeConflict, KubeError, KubeNotFound

_log: Final = logging.getLogger(__name__)

_WORKERS: Final = 4
"""Revisions looked at at once: writes to the API server overlap, decisions do not."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """The autoscaler class. `run` it on the leader only, beside `Watches.run`.

    now: wall clock of status times.
    """

    def __init__(
        self,
        kube: Kube,
        watches: Watches,
        metrics: Metrics,
        rng: random.Random,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._kube = kube
        self._watches = watches
        self._metrics = metrics
        self._now = now
        self._queue = WorkQueue(rng)
        watches.autoscalers.subscribe(self._object_changed)
        watches.revisions.subscribe(self._object_changed)
        watches.services.subscribe(self._object_changed)
        watches.deployments.subscribe(self._deployment_changed)
        watches.config.subscribe(self._config_changed)

    async def run(self) -> None:
        """Until cancelled. Nothing is decided before everything was listed: a look must not take unseen for absent."""
        await self._watches.wait()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_WORKERS):
                    group.create_task(self._work(), name=f"reconciler {number}")
        finally:
            self._queue.close()

    def _object_changed(self, before: Object | None, after: Object | None) -> None:
        """Autoscaler, Revision and ServerlessService of a revision all have its name."""
        item = after or before
        assert item is not None
        self._wake(key_of(item))

    def _deployment_changed(self, before: Object | None, after: Object | None) -> None:
        item = after or before
        assert item is not None
        metadata = item["metadata"]
        self._wake((metadata["namespace"], metadata["labels"][REVISION_LABEL]))

    def _config_changed(self, _before: Object | None, _after: Object | None) -> None:
        for key in self._watches.autoscalers.objects:
            self._wake(key)

    def _wake(self, key: Key) -> None:
        """Revisions of other classes are not ours to look at. What is not listed yet wakes us when it is."""
        autoscaler = self._watches.autoscalers.get(key)
        if autoscaler is not None and ours(autoscaler):
            self._queue.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                await self._reconcile(key)
            except KubeError as error:
                self._metrics.reconciled("conflict" if isinstance(error, KubeConflict) else "error")
                wait_s = self._queue.failed(key)
                expected = isinstance(error, KubeConflict | KubeNotFound) or error.reason == NAMESPACE_TERMINATING
                _log.log(
                    logging.DEBUG if expected else logging.WARNING, "%s/%s: %s; next try in %.1f s", *key, error, wait_s
                )
            except Exception:
                # One object that is not understood must not stop the others.
                self._metrics.reconciled("error")
                wait_s = self._queue.failed(key)
                _log.exception("%s/%s: cannot be reconciled; next try in %.1f s", *key, wait_s)
            else:
                self._metrics.reconciled("ok")
                self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        look = self._look(key)
        if look is None:
            return
        for write in decide(look, self._now()):
            await self._carry_out(key, write)

    def _look(self, key: Key) -> Look | None:
        watches = self._watches
        autoscaler = watches.autoscalers.get(key)
        if autoscaler is None:
            return None
        namespace, _ = key
        return Look(
            autoscaler=autoscaler,
            revision=watches.revisions.get(key),
            deployment=watches.deployments.get((namespace, autoscaler["spec"]["scaleTargetRef"]["name"])),
            service=watches.services.get(key),
            defaults=watches.defaults,
        )

    async def _carry_out(self, key: Key, write: Write) -> None:
        namespace, name = key
        match write:
            case CreateService(body):
                await self._kube.create(SERVERLESS_SERVICES, body, namespace)
                _log.info("%s/%s: made its ServerlessService (%s)", *key, body["spec"]["mode"])
            case ChangeService(service, body):
                self._watches.services.learn(await self._kube.patch(SERVERLESS_SERVICES, service, body, namespace))
                _log.info("%s/%s: ServerlessService is now %s", *key, body["spec"]["mode"])
            case SetReplicas(deployment, replicas):
                await self._kube.patch(DEPLOYMENT_SCALE, deployment, {"spec": {"replicas": replicas}}, namespace)
                _log.info("%s/%s: %d pods", *key, replicas)
            case LookAgain(wait_s):
                self._queue.add_later(key, wait_s)
            case WriteStatus(body):
                self._watches.autoscalers.learn(await self._kube.patch(POD_AUTOSCALER_STATUS, name, body, namespace))
