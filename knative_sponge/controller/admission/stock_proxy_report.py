"""Reports pods that run Knative's own proxy although their revision has an SLO, and webhook configurations that do not work.

The webhook never stops a pod: when it is down, pods start with the stock proxy, and people must learn of it. Nothing is
changed here; the report is Events, metrics and logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Final

from knative_sponge.controller.annotations import REVISION_LABEL, SLO_ANNOTATION
from knative_sponge.controller.cluster.pod_request import of_revision
from knative_sponge.controller.cluster.watches import Watches
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.events import Event, Recorder
from knative_sponge.controller.kube.informer import Changed
from knative_sponge.controller.kube.resource import MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, Key, Object
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.reporting.metrics import KEPT, MISSED, Metrics
from knative_sponge.errors import KubeError, KubeNotFound
from knative_sponge.settings.serving import EFFECTIVE, MOST_EFFECTIVE, PROXY

_log: Final = logging.getLogger(__name__)

_PERIOD_S: Final = 30.0
_LONGEST_WHY: Final = 500
_REST_S: Final = 1.0
"""Pods change in bursts. All of them are checked once per burst."""


@dataclass(frozen=True, slots=True)
class StockProxy:
    """Why a pod runs the stock proxy. why: as a metric label. note: as a sentence for its owner."""

    why: str
    note: str


def stock_proxy(pod: Object) -> StockProxy | None:
    """Why this pod runs the stock proxy although its revision has an SLO. None where it does not, or is ending."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    names = {container["name"] for container in pod["spec"]["containers"]}
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if ended or "deletionTimestamp" in metadata or not annotations.get(SLO_ANNOTATION) or "queue-proxy" not in names:
        return None
    match annotations.get(PROXY):
        case "sponge":
            return None
        case None:
            return StockProxy(
                MISSED,
                "Pods started without the admission webhook and run Knative's own queue-proxy: no deadlines are kept. "
                "Delete them to have them replaced.",
            )
        case _:
            return StockProxy(KEPT, f"Pods keep Knative's own queue-proxy: {_why(annotations)}.")


def broken(configuration: Object | None) -> str | None:
    """What is wrong with a webhook configuration; None when the API server can call the webhook."""
    if configuration is None:
        return "is missing"
    webhooks = configuration.get("webhooks") or ()
    if not webhooks:
        return "has no webhooks"
    if any(not (webhook.get("clientConfig") or {}).get("caBundle") for webhook in webhooks):
        return "has no certificate authority yet"
    return None


class Reporter:
    """Checks all pods of revisions every _PERIOD_S, and soon after one with the stock proxy changed. `run` it on the leader."""

    def __init__(
        self,
        kube: Kube,
        watches: Watches,
        recorder: Recorder,
        metrics: Metrics,
        failures: Failures | None = None,
    ) -> None:
        failures = failures or Failures()
        self._pod_steps, self._told_steps = failures.of("stock proxies"), failures.of("reports of stock proxies")
        self._webhook_steps = failures.of("webhook configurations", _PERIOD_S)
        self._kube = kube
        self._watches = watches
        self._recorder = recorder
        self._metrics = metrics
        self._changed = asyncio.Event()
        self._told: dict[tuple[Key, StockProxy], str] = {}
        self._webhook_faults: dict[str, str] = {}
        watches.pods.subscribe(self._pod_changed)
        watches.revisions.subscribe(lambda _changed: self._changed.set())

    async def run(self) -> None:
        """Until cancelled."""
        await self._watches.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_pods(), name="report pods")
            group.create_task(self._report_webhooks(), name="report webhooks")

    def _pod_changed(self, changed: Changed[Object]) -> None:
        try:
            matters = _found(changed.before) is not None or _found(changed.after) is not None
        except Exception:
            matters = True  # the check says what is wrong with it
        if matters:
            self._changed.set()

    async def _report_pods(self) -> None:
        while True:
            self._changed.clear()
            await self._check_pods()
            await asyncio.sleep(_REST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_S):
                    await self._changed.wait()

    async def _check_pods(self) -> None:
        """Count the pods. Each revision gets one Event per finding while the finding lasts."""
        counts: Counter[str] = Counter()
        lasting: set[tuple[Key, StockProxy]] = set()
        for name, pod in self._watches.pods.objects.items():
            if (found := self._pod_steps.run(name, partial(_found, pod))) is not None:
                counts[found.why] += 1
                lasting.add(((name[0], pod["metadata"]["labels"][REVISION_LABEL]), found))
        self._metrics.stock_proxies(counts)
        for finding in [finding for finding in self._told if finding not in lasting]:
            del self._told[finding]
        for key, found in lasting:
            await self._told_steps.wait_for(key, partial(self._report, key, found))

    async def _report(self, key: Key, found: StockProxy) -> None:
        revision = self._watches.revisions.get(key)
        if revision is None or self._told.get((key, found)) == revision["metadata"]["uid"]:
            return
        _log.warning("%s/%s: %s", *key, found.note)
        regarding = {"apiVersion": "serving.knative.dev/v1", "kind": "Revision", **revision}
        if await self._recorder.record(Event(regarding, "Warning", "Admit", "StockProxy", found.note)):
            self._told[key, found] = revision["metadata"]["uid"]

    async def _report_webhooks(self) -> None:
        while True:
            await self._webhook_steps.wait_for("webhooks", self._check_webhooks)
            await asyncio.sleep(_PERIOD_S)

    async def _check_webhooks(self) -> None:
        faults: dict[str, str] = {}
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            (name,) = resource.names
            try:
                fault = broken(await self._kube.get(resource, name))
            except KubeNotFound:
                fault = broken(None)
            except KubeError as error:
                _log.warning("%s cannot be read: %s", resource, error)
                continue
            if fault is not None:
                faults[str(resource)] = fault
        for name, fault in faults.items():
            if self._webhook_faults.get(name) != fault:
                _log.warning("%s knative-sponge %s: new pods keep Knative's own queue-proxy", name, fault)
        self._webhook_faults = faults
        self._metrics.broken_webhooks(len(faults))


def _found(pod: Object | None) -> StockProxy | None:
    return stock_proxy(pod) if pod is not None and of_revision(pod) else None


def _why(annotations: dict[str, str]) -> str:
    """The reason that the webhook wrote, on one line. The annotation may hold anything: others may change pods."""
    text = annotations.get(EFFECTIVE, "")
    if len(text) > MOST_EFFECTIVE:
        return "the reason is not known"
    try:
        why = json.loads(text)["why"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the reason is not known"
    return " ".join(str(why).encode(errors="replace").decode().split())[:_LONGEST_WHY]
