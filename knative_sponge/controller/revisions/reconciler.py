"""Snapshots a revision whenever something about it changes and carries out what `decision` decides; nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from knative_sponge.controller.annotations import REVISION_LABEL, has_our_class
from knative_sponge.controller.cluster.watches import Watches
from knative_sponge.controller.kube.client import NAMESPACE_TERMINATING, Kube
from knative_sponge.controller.kube.informer import Changed
from knative_sponge.controller.kube.resource import (
    DEPLOYMENT_SCALE,
    POD_AUTOSCALER_STATUS,
    SERVERLESS_SERVICES,
    Key,
    Object,
)
from knative_sponge.controller.kube.workqueue import WorkQueue
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.revisions.decision import (
    Action,
    ChangeService,
    CreateService,
    RequeueAfter,
    RevisionSnapshot,
    SetReplicas,
    WriteStatus,
    decide,
    is_idle,
)
from knative_sponge.errors import KubeConflict, KubeError, KubeNotFound

_log: Final = logging.getLogger(__name__)

Idle = Callable[[Key], float | None]
"""Seconds since the last request of any pod of a revision, 0 while one is being served; None when that is not known."""

PodsWanted = Callable[[Key], int | None]
"""Pods that a revision's load asks for; None where only the annotations count, or while that is not known."""

_WORKERS: Final = 4
"""Revisions that are reconciled at once. Their writes to the API server overlap."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _unknown(_key: Key) -> None:
    return None


class ColdRequestSource(Protocol):
    """Tells of requests for revisions without pods. `activators.Activators` is one, and its methods say what they do."""

    @property
    def visible(self) -> bool: ...

    @property
    def lost(self) -> bool: ...

    def subscribe(self, on_request: Callable[[Key], None], on_view: Callable[[], None]) -> None: ...

    def expect(self, key: Key, yes: bool) -> None: ...

    def pending(self, key: Key) -> int: ...


class Reconciler:
    """The PodAutoscaler class. `run` it on the leader only, beside `Watches.run`.

    now: wall clock of status times. cold_requests: without it no revision that a Route names goes to zero.
    """

    def __init__(
        self,
        kube: Kube,
        watches: Watches,
        metrics: Metrics,
        rng: random.Random,
        now: Callable[[], datetime] = _utc_now,
        *,
        cold_requests: ColdRequestSource | None = None,
        idle: Idle = _unknown,
        pods_wanted: PodsWanted = _unknown,
        failures: Failures | None = None,
    ) -> None:
        self._steps = (failures or Failures()).of("revisions")
        self._kube = kube
        self._watches = watches
        self._metrics = metrics
        self._now = now
        self._cold_requests = cold_requests
        self._idle = idle
        self._pods_wanted = pods_wanted
        self._queue = WorkQueue(rng)
        if cold_requests is not None:
            cold_requests.subscribe(self.wake, self._wake_all)
        watches.autoscalers.subscribe(self._object_changed)
        watches.revisions.subscribe(self._object_changed)
        watches.services.subscribe(self._object_changed)
        watches.deployments.subscribe(self._deployment_changed)
        watches.config.subscribe(lambda _changed: self._wake_all())

    async def run(self) -> None:
        """Until cancelled. Nothing is decided before everything was listed: an object not yet seen must not count as absent."""
        await self._watches.wait()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_WORKERS):
                    group.create_task(self._work(), name=f"reconciler {number}")
        finally:
            self._queue.close()

    def _object_changed(self, changed: Changed[Object]) -> None:
        """PodAutoscaler, Revision and ServerlessService of a revision all have its name."""
        self.wake(changed.key)

    def _deployment_changed(self, changed: Changed[Object]) -> None:
        namespace, _ = changed.key
        self.wake((namespace, changed.last["metadata"]["labels"][REVISION_LABEL]))

    def _wake_all(self) -> None:
        for key in self._watches.autoscalers.objects:
            self._steps.run(key, partial(self.wake, key))

    def wake(self, key: Key) -> None:
        """Reconcile a revision soon, if its PodAutoscaler is known and of our class. One that is not known yet is reconciled
        when its informer tells of it."""
        autoscaler = self._watches.autoscalers.get(key)
        if autoscaler is not None and has_our_class(autoscaler):
            self._queue.add(key)
        elif autoscaler is None and self._cold_requests is not None:
            self._cold_requests.expect(key, False)

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
            except Exception as error:
                # One object that is not understood must not stop the others.
                self._metrics.reconciled("error")
                self._queue.failed(key)
                self._steps.failed(key, error)
            else:
                self._metrics.reconciled("ok")
                self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        snapshot = self._snapshot(key)
        if snapshot is None:
            return
        if self._cold_requests is not None:
            self._cold_requests.expect(key, is_idle(snapshot))
        for action in decide(snapshot, self._now()):
            await self._carry_out(key, action)

    def _snapshot(self, key: Key) -> RevisionSnapshot | None:
        watches = self._watches
        autoscaler = watches.autoscalers.get(key)
        if autoscaler is None:
            return None
        namespace, _ = key
        return RevisionSnapshot(
            autoscaler=autoscaler,
            revision=watches.revisions.get(key),
            deployment=watches.deployments.get((namespace, autoscaler["spec"]["scaleTargetRef"]["name"])),
            service=watches.services.get(key),
            defaults=watches.defaults,
            idle_s=self._idle(key),
            request_waiting=self._cold_requests is not None and self._cold_requests.pending(key) > 0,
            activators_visible=self._cold_requests is not None and self._cold_requests.visible,
            activators_lost=self._cold_requests is None or self._cold_requests.lost,
            pods_wanted=self._pods_wanted(key),
        )

    async def _carry_out(self, key: Key, action: Action) -> None:
        namespace, name = key
        match action:
            case CreateService(body):
                await self._kube.create(SERVERLESS_SERVICES, body, namespace)
                _log.info("%s/%s: made its ServerlessService (%s)", *key, body["spec"]["mode"])
            case ChangeService(service, body):
                self._watches.services.learn(await self._kube.patch(SERVERLESS_SERVICES, service, body, namespace))
                _log.info("%s/%s: ServerlessService is now %s", *key, body["spec"]["mode"])
            case SetReplicas(deployment, replicas):
                await self._kube.patch(DEPLOYMENT_SCALE, deployment, {"spec": {"replicas": replicas}}, namespace)
                _log.info("%s/%s: %d pods", *key, replicas)
            case RequeueAfter(wait_s):
                self._queue.add_later(key, wait_s)
            case WriteStatus(body):
                self._watches.autoscalers.learn(await self._kube.patch(POD_AUTOSCALER_STATUS, name, body, namespace))
