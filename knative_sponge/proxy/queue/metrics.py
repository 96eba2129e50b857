"""Prometheus metrics of the queue-proxy: one registry per proxy, bounded label sets, names `sponge_*` with their unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.codec.base import Answer
from knative_sponge.core.batching.deadline import CLAIM_HEADERS, Deadline, Skew, Source
from knative_sponge.errors import Reason
from knative_sponge.proxy.http.plain_answers import deliver, error

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SLACKS = (-1.0, -0.25, -0.05, 0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_NOT_FOUND = error(404, "404 page not found")
_NOT_ALLOWED = error(405, "Method Not Allowed", (b"allow", b"GET, HEAD"))
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts and distributions of one proxy. Label values come from enums, so their number is bounded.

    registry: shared with others' metrics; None makes one.
    on_invoked: called with status and upstream seconds of each request that the model server answered.
    met, missed: requests that got a good answer by their deadline, and that did not. A request that the client spoiled is
    neither: it left, or it asked what cannot be understood.
    passed_through: requests that are not for the queue; those that switch protocols are not counted.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        on_invoked: Callable[[int, float], None] = lambda _status, _seconds: None,
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.met = self.missed = self.passed_through = 0
        self.registry.register(_PassedThrough(self))
        self._on_invoked = on_invoked
        requests = Counter(
            "sponge_requests",
            "Inference requests by outcome: ok, late, app-error or a Reason.",
            ["outcome"],
            registry=self.registry,
        )
        outcomes = ("ok", "late", "app-error", "client-gone", *Reason)
        self._outcomes = {outcome: requests.labels(str(outcome)) for outcome in outcomes}
        self._slack = Histogram(
            "sponge_slack_seconds",
            "Time left at the answer; negative is late.",
            buckets=_SLACKS,
            registry=self.registry,
        )
        self._queue = Histogram(
            "sponge_queue_seconds", "Time from arrival to dispatch.", buckets=_SECONDS, registry=self.registry
        )
        self._infer = Histogram(
            "sponge_infer_seconds", "Time of one upstream call.", buckets=_SECONDS, registry=self.registry
        )
        self._rows = Histogram("sponge_batch_rows", "Rows of one upstream call.", buckets=_ROWS, registry=self.registry)
        failed = Counter("sponge_batch_failures", "Upstream calls not answered with 2xx.", registry=self.registry)
        self._failed = failed
        sources = Counter(
            "sponge_deadline_source", "Requests by where their deadline came from.", ["source"], registry=self.registry
        )
        self._sources = {source: sources.labels(source.value) for source in Source}
        skews = Counter("sponge_clock_skew", "Send times that had to be clamped.", ["kind"], registry=self.registry)
        self._skews = {skew: skews.labels(skew.value) for skew in Skew}
        ignored = Counter(
            "sponge_ignored_claims",
            "Deadline headers whose value could not be used.",
            ["header"],
            registry=self.registry,
        )
        self._ignored = {name.decode(): ignored.labels(name.decode()) for name in sorted(CLAIM_HEADERS)}
        self._clipped = Counter(
            "sponge_clipped_budgets", "Requests that asked for more time than they may.", registry=self.registry
        )
        self._network = Histogram(
            "sponge_network_seconds", "Time used before arrival, where the send time is known.", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A value that is read when it is scraped."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def admitted(self, deadline: Deadline) -> None:
        """A request arrived and has a deadline."""
        self._sources[deadline.source].inc()
        if deadline.skew is not None:
            self._skews[deadline.skew].inc()
        if deadline.clipped:
            self._clipped.inc()
        if deadline.network_s > 0:
            self._network.observe(deadline.network_s)
        for name in deadline.ignored:
            self._ignored[name].inc()

    def refused(self, reason: Reason) -> None:
        """A request was answered by us, with a Reason."""
        self._outcomes[reason].inc()
        self.missed += reason is not Reason.BAD_REQUEST

    def slow_client(self) -> None:
        """A request was not complete by its deadline: cores would not have helped."""
        self._outcomes[Reason.EXPIRED].inc()

    def gone(self) -> None:
        """A client went away before its answer."""
        self._outcomes["client-gone"].inc()

    def answered(self, status: int, slack_s: float, queue_s: float, infer_s: float) -> None:
        """A request was answered by the model server."""
        self._on_invoked(status, infer_s)
        self._outcomes["app-error" if status >= 400 else "ok" if slack_s >= 0 else "late"].inc()
        if status < 500 and slack_s >= 0:  # a 4xx is the model server's answer to this very request
            self.met += 1
        else:
            self.missed += 1
        self._slack.observe(slack_s)
        self._queue.observe(queue_s)

    def batch(self, rows: int, infer_s: float, *, ok: bool) -> None:
        """An upstream call was answered."""
        self._rows.observe(rows)
        self._infer.observe(infer_s)
        if not ok:
            self._failed.inc()


class _PassedThrough(Collector):
    """Read when it is scraped: a request that is passed through costs no more than an addition."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See `Collector.collect`."""
        yield CounterMetricFamily(
            "sponge_passed_through", "Requests that are not for the queue.", value=self._metrics.passed_through
        )


class MetricsPage:
    """ASGI application of the metrics port: `GET /metrics` shows a registry as Prometheus text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics":
            await deliver(_NOT_FOUND, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await deliver(_NOT_ALLOWED, send)
        else:
            body = generate_latest(self._registry)
            await deliver(Answer(200, (_TYPE, (b"content-length", b"%d" % len(body))), body), send)
