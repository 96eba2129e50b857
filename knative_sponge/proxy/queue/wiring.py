"""Puts the deadline queue together: core, batching, demand, control and metrics from settings. Wires; decides nothing."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path

from knative_sponge import __version__
from knative_sponge.byte_budget import ByteBudget
from knative_sponge.codec.select import codec_for
from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.deadline import ClientBudget
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import CoresChanged
from knative_sponge.core.batching.fifo_batcher import FifoBatcher, FifoRules
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import from_json, to_json
from knative_sponge.errors import ProfileError, SettingError
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.request_metrics import RequestMetrics
from knative_sponge.proxy.knative.stat import StatReporter
from knative_sponge.proxy.queue.authorisation import Authorisation
from knative_sponge.proxy.queue.body import COPIES
from knative_sponge.proxy.queue.cloudevent_replies import source_of
from knative_sponge.proxy.queue.control import Resizing, control_routes
from knative_sponge.proxy.queue.cpu_hook import CpuHook
from knative_sponge.proxy.queue.demand import DemandFeed, PodActivity
from knative_sponge.proxy.queue.endpoint import InferenceEndpoint, RequestRules
from knative_sponge.proxy.queue.metrics import Metrics, MetricsPage
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import Late, ProtocolName, ProxySettings, ServingSettings
from knative_sponge.wire.state import BatchState, CoresState, ProxyState, QueueState

_MOST_ROWS = 1024
_START_CORES = 1.0
_INLINE = "{"
"""How a profile begins that is JSON and no path."""
_AHEAD_S = 0.1
"""The queue gives up so long before the revision timeout: only the queue's answer knows an event's deadline."""

logger = logging.getLogger(__name__)


class Inference:
    """Everything that `knative-sponge.dev/slo` switches on in one proxy.

    breaker: whose concurrency slots upstream calls wait for; None lets them go at once.
    stat: where all requests are counted, those that are not for the queue included.
    budget: what requests are held in; None is one of its own.
    request_metrics: what Knative counts; it is told of batched requests, and its registry holds the queue's metrics too.
    Raises SettingError when the settings contradict each other or the profile cannot be used.
    """

    def __init__(
        self,
        settings: ProxySettings,
        serving: ServingSettings,
        upstream: Upstream,
        breaker: Breaker | None = None,
        stat: StatReporter | None = None,
        request_metrics: RequestMetrics | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        budget = ByteBudget() if budget is None else budget
        if serving.slo_s is None:
            raise SettingError("slo", None, "a duration; without one the proxy has no deadline queue")
        self._serving = serving
        self._max_inflight = min(serving.max_inflight, settings.container_concurrency or serving.max_inflight)
        cores = settings.cores or serving.max_cores or _START_CORES
        max_cores = max(serving.max_cores or os.cpu_count() or 1, cores)
        self._max_cores = max_cores
        model = _model(settings)
        # Without merging a call has the rows of one request: plans must not count on larger calls.
        max_rows = 1 if serving.protocol is ProtocolName.NONE else serving.max_batch
        self._batcher = Batcher(
            BatchRules(
                max_rows=max_rows,
                max_inflight=self._max_inflight,
                serve_late=serving.late is Late.SERVE,
                displace=serving.client_budget is ClientBudget.ANY,
                defer=DeferRules(mode=serving.defer.value),
            ),
            model,
            cores,
            max_cores,
        )
        machine: Batcher | FifoBatcher = self._batcher
        if settings.policy == "fifo":
            rules = FifoRules(max_rows, settings.fifo_timeout_s, self._max_inflight)
            machine = FifoBatcher(rules, model, cores)
            max_cores = cores  # the baseline never asks for another size
        self._machine = machine
        self.metrics = (
            Metrics() if request_metrics is None else Metrics(request_metrics.registry, request_metrics.invoked)
        )
        self.metrics_app = MetricsPage(self.metrics.registry)
        request_rules = RequestRules(
            slo_s=serving.slo_s,
            timeout_s=max(settings.timeout_s - _AHEAD_S, settings.timeout_s / 2),
            max_network_share=serving.max_network_share,
            client_budget=serving.client_budget,
            serve_late=serving.late is Late.SERVE or settings.policy == "fifo",
            max_body=min(serving.max_body, budget.largest // COPIES),
            max_rows=serving.max_rows,
            most_rows=max(_MOST_ROWS, serving.max_batch),
        )
        min_cores = cores if settings.policy == "fifo" else min(serving.min_cores, max_cores)
        self._stat = stat
        self._estimator = DemandEstimator(CoresRules(min_cores, max_cores), self._batcher)
        self._feed = DemandFeed(self._estimator, self._activity)
        self._hook = CpuHook(serving.cpu_hook, upstream) if serving.cpu_hook is not None else None
        most = math.inf if serving.max_cores is None else self._max_cores
        self._resizing = Resizing(cores, self._max_cores, self._resized, self._hook, most)
        self.endpoint = InferenceEndpoint(
            codec_for(serving.protocol, serving.keep_apart or ()),
            machine,
            upstream,
            request_rules,
            self.metrics,
            source=source_of(settings.namespace, settings.configuration),
            concurrency_slot=breaker,
            on_change=self._feed.poke,
            on_sample=self._sampled,
            size_confirmed=lambda: self._resizing.size_confirmed,
            budget=budget,
        )
        self.admin_routes = control_routes(Authorisation.of(settings), self._feed, self._resizing, self.state)
        for name, text, read in (
            ("sponge_queue_rows", "Rows that wait.", lambda: float(_rows(machine))),
            ("sponge_held_bytes", "Bytes that are held for clients.", lambda: float(budget.taken)),
            ("sponge_held_bytes_limit", "Bytes that may be held for clients.", lambda: float(budget.limit)),
            ("sponge_cores", "Cores that are planned with.", lambda: machine.cores),
            ("sponge_cores_wanted", "The least cores that are needed now.", lambda: self._feed.wanted),
            ("sponge_arrival_rate_rows_per_second", "Arriving rows.", lambda: machine.arrivals.rate(time.monotonic())),
        ):
            self.metrics.gauge(name, text, read)

    def start(self) -> None:
        """Begin to publish the demand. Needs a running loop."""
        self._feed.start()

    async def close(self) -> None:
        """Stop publishing, end what still runs."""
        self._feed.close()
        await self.endpoint.close()
        if self._hook is not None:
            await self._hook.close()

    def state(self) -> ProxyState:
        """Sizes, counts and the model; nothing of any request."""
        now, machine = time.monotonic(), self._machine
        size = self._resizing.size
        return ProxyState(
            version=__version__,
            settings=self._serving.effective(),
            cores=CoresState(
                now=size.cores,
                coming=size.coming,
                want=self._feed.wanted,
                max=self._max_cores,
                reach=self._resizing.reach,
            ),
            queue=QueueState(
                requests=len(machine.queue),
                rows=_rows(machine),
                late=len(self._batcher.late),
                slack_s=self._head_slack(now),
            ),
            running=tuple(
                BatchState(rows=batch.rows, requests=len(batch.members), for_s=round(now - batch.started_s, 4))
                for batch in machine.running.values()
            ),
            rate=round(machine.arrivals.rate(now), 3),
            model=to_json(machine.model),
        )

    def _head_slack(self, now: float) -> float | None:
        head = self._batcher.queue.first()
        return None if head is None else round(head.deadline_s - now, 4)

    def _activity(self) -> PodActivity:
        idle_s = None if self._stat is None else self._stat.idle_s()
        return PodActivity(self._resizing.size.coming, idle_s, self.metrics.met, self.metrics.missed)

    def _resized(self, event: CoresChanged) -> None:
        self.endpoint.tell(event)
        if event.reach is not None and self._machine is self._batcher:
            self._estimator.within(event.reach)
        self._feed.poke()

    def _sampled(self, rows: int, seconds: float) -> None:
        self._resizing.take(self._resizing.size.measured(rows, seconds, self._machine.model, self._max_inflight))


def _rows(machine: Batcher | FifoBatcher) -> int:
    if isinstance(machine, Batcher):
        return machine.queue.rows
    return sum(work.rows for work in machine.queue)


def _model(settings: ProxySettings) -> LatencyModel:
    cold = LatencyModel(period_s=settings.cfs_period_s)
    if settings.profile is None:
        return cold
    inline = settings.profile.startswith(_INLINE)
    try:
        text = settings.profile if inline else Path(settings.profile).read_text(encoding="utf-8")
        return from_json(json.loads(text), period_s=settings.cfs_period_s)
    except (OSError, ValueError, RecursionError, ProfileError) as error:
        if inline:  # the webhook wrote it, and a fault of it must not keep a pod from starting
            logger.warning("SPONGE_PROFILE: not a latency profile (%s); starting without", error)
            return cold
        raise SettingError("SPONGE_PROFILE", settings.profile, f"a readable latency profile ({error})") from error
