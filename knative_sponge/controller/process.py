"""One replica of the controller: which parts run on every replica, which on the leader only, and how they start and end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from knative_sponge.controller.admission.control_keys import ControlKeys, KeyRotation
from knative_sponge.controller.admission.rotation import Rotation, SecretSource
from knative_sponge.controller.admission.stock_proxy_report import Reporter
from knative_sponge.controller.admission.webhook import WebhookServer
from knative_sponge.controller.cluster.control_token import key_named
from knative_sponge.controller.cluster.namespace_limits import NamespaceLimits
from knative_sponge.controller.cluster.node import start_room
from knative_sponge.controller.cluster.ownership import Ownership
from knative_sponge.controller.cluster.pod import PodView, control_reference
from knative_sponge.controller.cluster.watches import Nodes, Watches, limits_config
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.events import Recorder
from knative_sponge.controller.kube.lease import Elector
from knative_sponge.controller.kube.watchdog import must_end
from knative_sponge.controller.profiles.store import ProfileKeeper, ProfileStore
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.health import health_app, metrics_app
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.revisions.activators import Activators
from knative_sponge.controller.revisions.reconciler import Reconciler
from knative_sponge.controller.sizing.sizer import Sizer
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.listener import Listener
from knative_sponge.settings import ControllerSettings
from knative_sponge.wire.http import ADMIN_PORT

_log: Final = logging.getLogger(__name__)

LEAVING_S: Final = 5.0
"""The webhook answers so long after SIGTERM: the API server's way to a pod is forgotten late, and a call that fails
leaves a pod with the stock proxy."""
ENDING_S: Final = 22.0
"""All of it has ended so long after SIGTERM, or is ended (`watchdog`): Kubernetes waits for 30 s, then it kills."""


class Process:
    """Everything of one replica.

    rng: spreads retries. host: address of all ports; None is all interfaces. leaving_s: see LEAVING_S. admin_port: of proxies.
    growth: how far pods grow and shrink at once, where that is not the default. end: ends the process, as `os._exit` does.
    """

    def __init__(
        self,
        settings: ControllerSettings,
        kube: Kube,
        rng: random.Random,
        *,
        host: str | None = None,
        leaving_s: float = LEAVING_S,
        admin_port: int = ADMIN_PORT,
        growth: GrowthRules | None = None,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._rng = rng
        self._leaving_s = leaving_s
        self._growth = growth
        self._end = end
        self._watches: Watches | None = None
        self._metrics = Metrics()
        self.failures = Failures(self._metrics.failed)
        """Of all loops, by object."""
        self._elector = Elector(kube, settings.pod, settings.namespace, settings.lease, settings.lease_duration_s, end)
        self._profiles = ProfileStore(kube, settings.namespace, self.failures)
        self._keys = ControlKeys(kube, settings, failures=self.failures)
        self._nodes = Nodes(kube, rng, self.failures)
        self._limits_config = limits_config(kube, settings.namespace, rng, self.failures)
        self._limits = NamespaceLimits(self._limits_config)
        self.webhook = WebhookServer(
            settings,
            SecretSource(kube, settings),
            self._metrics.registry,
            self._keys.mint,
            lookup=self._profiles.get,
            room=self._room,
            bounds=self._limits.known_of,
            host=host,
        )
        checks = {
            "the webhook has no certificate": self._serves,
            "the webhook has no control key": lambda: self._keys.ready,
            "the webhook has not read the limits": lambda: self._limits.ready,
            "the leader has not listed everything": self._synced,
        }
        self.health = Listener(health_app(checks), host, settings.health_port)
        self._board = Board()
        self._admin_port = admin_port
        self.metrics = Listener(metrics_app(self._metrics.render, self._board.routes), host, settings.metrics_port)
        self.started = asyncio.Event()
        """Set once all ports listen."""

    @property
    def leads(self) -> bool:
        """Does this replica lead now?"""
        return self._elector.leads

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises what a part of it raised: a replica with a dead part must not go on."""
        parts = (self.webhook, self.health, self.metrics)
        endless = (
            asyncio.create_task(self._elector.run(self._lead), name="election"),
            asyncio.create_task(self._profiles.run(), name="profiles"),
            asyncio.create_task(self._keys.run(), name="control keys"),
            asyncio.create_task(self._nodes.run(), name="nodes"),
            asyncio.create_task(self._limits_config.run(), name="limits"),
        )
        stopping = asyncio.create_task(stop.wait())
        try:
            for part in parts:
                await part.start()
            self.started.set()
            await asyncio.wait((*endless, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in endless:
                if task.done():
                    task.result()
            _log.info("stopping")
        finally:
            with must_end("this replica", ENDING_S, self._end):
                stopping.cancel()
                for task in endless:
                    task.cancel()
                await asyncio.gather(*endless, return_exceptions=True)
                if stop.is_set():
                    await asyncio.sleep(self._leaving_s)
                for part in parts:
                    await part.stop()
                await self._kube.close()

    async def _lead(self) -> None:
        """All that only one replica may do; every write of it is held back the moment that this replica leads no more."""
        settings, metrics = self._settings, self._metrics
        kube = self._kube.fenced(self._elector.fence)
        self._watches = watches = Watches(
            kube, settings.system_namespace, self._rng, self._nodes, self._limits_config, self.failures
        )
        recorder = Recorder(kube, settings.pod)
        keeper = ProfileKeeper(kube, self._profiles, settings.namespace, self.failures)
        owners = Ownership(
            watches.revisions,
            watches.deployments,
            watches.replica_sets,
            self._limits,
            images=settings.proxy_images,
            proven=self._keys.admitted,
        )
        sizer = Sizer(
            kube,
            watches,
            owners,
            recorder,
            metrics,
            self._board,
            keeper,
            self._rng,
            port=self._admin_port,
            token=self._token,
            growth=self._growth,
            failures=self.failures,
        )
        activators = Activators(kube, settings.system_namespace, self._rng, failures=self.failures)
        reconciler = Reconciler(
            kube,
            watches,
            metrics,
            self._rng,
            cold_requests=activators,
            idle=sizer.idle_s,
            pods_wanted=sizer.counts.wanted,
            failures=self.failures,
        )
        sizer.counts.subscribe(reconciler.wake)
        reporter = Reporter(kube, watches, recorder, metrics, self.failures)
        key_rotation = KeyRotation(kube, settings, self._keys_in_use, failures=self.failures)
        own_certificates = settings.cert_source == "own"
        rotations = (
            (key_rotation, Rotation(kube, settings, failures=self.failures)) if own_certificates else (key_rotation,)
        )
        unsubscribe = [self._keys.subscribe(told) for told in (sizer.divider.tokens_changed, owners.all_changed)]
        metrics.leads(True)
        try:
            async with asyncio.TaskGroup() as group:
                for part in (watches, sizer, activators, reconciler, reporter, *rotations):
                    group.create_task(part.run(), name=type(part).__name__)
        finally:
            for forget in unsubscribe:
                forget()
            owners.close()
            self._watches = None
            self._nodes.forget_subscribers()
            metrics.leads(False)

    def _room(self, pod: Mapping[str, Any]) -> float | None:
        """What the nodes that are known have for a new pod. The webhook of each replica asks, so each replica knows nodes."""
        views = (item["view"] for item in self._nodes.objects.values())
        return start_room(pod, (view for view in views if view is not None))

    def _token(self, pod: PodView) -> str:
        return self._keys.token(pod.key[0], pod.control) if pod.control else pod.token

    def _keys_in_use(self) -> set[int] | None:
        """The control keys that pods name; None while not all pods are known."""
        watches = self._watches
        if watches is None or not watches.synced:
            return None
        named = (key_named(control_reference(pod)) for pod in watches.pods.objects.values())
        return {key for key in named if key is not None}

    def _serves(self) -> bool:
        return self.webhook.ready

    def _synced(self) -> bool:
        return self._watches is None or self._watches.synced
