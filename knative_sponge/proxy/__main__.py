"""`python -m knative_sponge.proxy`: the queue-proxy, told everything by its environment; holds no logic of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import uvloop

from knative_sponge.asgi import ASGIApp
from knative_sponge.errors import SettingError
from knative_sponge.process_limits import memory_limit, raise_open_files
from knative_sponge.proxy.http.bounds import Bounds, memory_budget, shares
from knative_sponge.proxy.http.failure_log import OncePerPeriod, failures
from knative_sponge.proxy.http.head_limits import HeadLimits
from knative_sponge.proxy.knative.breaker import Breaker, breaker_for
from knative_sponge.proxy.knative.line_writer import LineWriter
from knative_sponge.proxy.knative.observe import Observer, Observers
from knative_sponge.proxy.knative.stat import StatReporter
from knative_sponge.proxy.server import build
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ProxySettings, ServingSettings
from knative_sponge.settings.observability import PROMETHEUS

if TYPE_CHECKING:
    from knative_sponge.proxy.knative.request_metrics import RequestMetrics
    from knative_sponge.proxy.queue.wiring import Inference

# What a plain queue-proxy does not need is imported where it is used: a pod is not ready before its proxy has started.

logger = logging.getLogger("knative_sponge.proxy")


def main() -> int:
    """Serve until told to stop; 0 after an orderly end, 1 when the settings or the ports cannot be used."""
    try:
        settings = ProxySettings.from_env(os.environ)
        serving = ServingSettings.from_env(os.environ)
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("knative_sponge").setLevel(_level(settings.log_level))
        failures.addFilter(OncePerPeriod())
        for warning in settings.warnings:
            logger.warning("%s", warning)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, serving))
    except (SettingError, OSError) as error:
        print(f"knative-sponge queue-proxy: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: ProxySettings, serving: ServingSettings) -> None:
    bounds = _bounds(settings)
    upstream = Upstream(
        settings.upstream_host,
        settings.user_port,
        max_answer=settings.max_answer,
        limits=HeadLimits(settings.max_head, settings.max_head_fields),
        budget=bounds.budget,
    )
    breaker = breaker_for(settings.container_concurrency)
    stat = StatReporter(settings.pod)
    request_metrics = _request_metrics(settings, breaker)
    inference = None
    if serving.slo_s is not None:
        from knative_sponge.proxy.queue.wiring import Inference  # noqa: PLC0415

        if breaker is not None and breaker.capacity < serving.max_batch:
            logger.warning(
                "CONTAINER_CONCURRENCY=%d lets only %d requests in, fewer than max-batch=%d: batches stay small; 0 leaves "
                "it to the deadlines",
                settings.container_concurrency, breaker.capacity, serving.max_batch,
            )  # fmt: skip
        inference = Inference(settings, serving, upstream, breaker, stat, request_metrics, bounds.budget)
    lines = LineWriter(sys.stdout.fileno())
    outer: list[Observer] = []
    inner: list[Observer] = []
    if request_metrics is not None:
        outer.append(request_metrics.outer)
        inner.append(request_metrics.inner)
    if settings.observability.request_log is not None:
        outer.append(_request_log(settings, settings.observability.request_log, lines))
    servers = build(
        settings,
        upstream=upstream,
        inference=None if inference is None else inference.endpoint,
        admin_routes=() if inference is None else inference.admin_routes,
        breaker=breaker,
        stat=stat,
        observers=Observers(outer, inner),
        metrics_app=_metrics_app(inference, request_metrics),
        finish=None if inference is None else inference.close,
        hook=serving.cpu_hook,
        bounds=bounds,
    )
    stat.start()
    if inference is not None:
        inference.start()
    await servers.run()
    stat.stop()
    lines.close()


def _bounds(settings: ProxySettings) -> Bounds:
    """What clients may take, by what the container and the settings allow."""
    files = raise_open_files()
    memory = settings.memory_budget or memory_budget(memory_limit())
    budget, connections = shares(memory, files, settings.max_connections)
    if settings.max_connections is not None and connections.most < settings.max_connections:
        logger.warning(
            "SPONGE_MAX_CONNECTIONS=%d: %d open files allow %d connections",
            settings.max_connections,
            files,
            connections.most,
        )
    return Bounds(
        budget,
        connections,
        head_timeout_s=settings.head_timeout_s,
        delivery_timeout_s=settings.delivery_timeout_s,
        longest_s=settings.timeout_s + settings.delivery_timeout_s,
    )


def _request_metrics(settings: ProxySettings, breaker: Breaker | None) -> RequestMetrics | None:
    """Those about users' requests; None unless Knative asks for them."""
    if settings.observability.request_metrics != PROMETHEUS:
        return None
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from knative_sponge.proxy.knative.request_metrics import RequestMetrics  # noqa: PLC0415

    return RequestMetrics(settings, CollectorRegistry(), breaker)


def _metrics_app(inference: Inference | None, request_metrics: RequestMetrics | None) -> ASGIApp | None:
    """What the metrics port serves; None leaves it closed. The deadline queue's own metrics are always served."""
    if inference is not None:
        return inference.metrics_app
    if request_metrics is None:
        return None
    from knative_sponge.proxy.queue.metrics import MetricsPage  # noqa: PLC0415

    return MetricsPage(request_metrics.registry)


def _request_log(settings: ProxySettings, template: str, lines: LineWriter) -> Observer:
    from knative_sponge.proxy.knative.request_log import RequestLog  # noqa: PLC0415

    return RequestLog(template, settings, lines.write, probes=settings.observability.log_probes)


def _level(word: str) -> int:
    """Knative's log levels are zap's; those Python does not have mean `info`."""
    level = logging.getLevelNamesMapping().get(word.upper(), logging.INFO)
    return level or logging.INFO


if __name__ == "__main__":
    sys.exit(main())
