"""Prometheus metrics about users' requests, by the names Knative gives them (docs/knative-contract.md §1.13).

Observed on Go's queue-proxy 1.21.1. What differs: a label that a client chooses freely has few values here
(`server_address` is left out, `kn_route_tag` is bounded), and there are no `otel_scope_*` labels and no metrics of the
Go runtime. Probes are not counted.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info

from knative_sponge import __version__
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.observe import ExchangeRecord, first
from knative_sponge.settings import ProxySettings

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_BYTES: Final = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_MOST_TAGS: Final = 50
_LABELS: Final = (
    "http_request_method", "http_response_status_code", "kn_route_tag", "network_protocol_name",
    "network_protocol_version", "url_scheme",
)  # fmt: skip

_Key = tuple[str, int, str, str, str]


class RequestMetrics:
    """Counts exchanges; `outer` and `inner` are observers (`observe`).

    breaker: whose pending requests are shown; None shows none.
    """

    def __init__(self, settings: ProxySettings, registry: CollectorRegistry, breaker: Breaker | None) -> None:
        self.registry = registry
        self._invocation = Histogram(
            "kn_serving_invocation_duration_seconds",
            "The duration of task execution",
            ["http_response_status_code"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._duration = Histogram(
            "http_server_request_duration_seconds",
            "Duration of HTTP server requests.",
            _LABELS,
            buckets=_SECONDS,
            registry=registry,
        )
        self._received = Histogram(
            "http_server_request_body_size_bytes",
            "Size of HTTP server request bodies.",
            _LABELS,
            buckets=_BYTES,
            registry=registry,
        )
        self._sent = Histogram(
            "http_server_response_body_size_bytes",
            "Size of HTTP server response bodies.",
            _LABELS,
            buckets=_BYTES,
            registry=registry,
        )
        if breaker is not None:
            depth = Gauge("kn_serving_queue_depth", "Number of current requests in the queue", registry=registry)
            depth.set_function(lambda: float(breaker.admitted))
        Info("target", "Target metadata", registry=registry).info(_target(settings))
        self._invocations: dict[int, Histogram] = {}
        self._exchanges: dict[_Key, tuple[Histogram, Histogram, Histogram]] = {}
        self._tags: set[str] = set()

    def outer(self, record: ExchangeRecord) -> None:
        """An exchange with a client is over."""
        if record.probe:
            return
        scope = record.scope
        method: str = scope["method"]
        key = (
            method if method in _METHODS else "_OTHER",
            record.status,
            self._tag(record),
            scope["http_version"],
            scope["scheme"],
        )
        found = self._exchanges.get(key)
        if found is None:
            labels = (*map(str, key[:3]), "http", *key[3:])
            found = (self._duration.labels(*labels), self._received.labels(*labels), self._sent.labels(*labels))
            self._exchanges[key] = found
        duration, received, sent = found
        duration.observe(record.seconds)
        received.observe(record.received)
        sent.observe(record.sent)

    def inner(self, record: ExchangeRecord) -> None:
        """A request that was passed through has its answer."""
        if not record.probe:
            self.invoked(record.status, record.seconds)

    def invoked(self, status: int, seconds: float) -> None:
        """The model server was asked for one request, waiting not counted."""
        found = self._invocations.get(status)
        if found is None:
            found = self._invocations[status] = self._invocation.labels(str(status))
        found.observe(seconds)

    def _tag(self, record: ExchangeRecord) -> str:
        """Which route the ingress meant, as Knative words it; the tag itself as long as there are not too many."""
        tag = first(record.headers, b"knative-serving-tag")
        default = first(record.headers, b"knative-serving-default-route")
        if not tag:
            return "kn:default" if default else "kn:disabled"
        if default == b"true":
            return "kn:undefined"
        name = tag.decode("utf-8", "replace")
        if name not in self._tags:
            if len(self._tags) >= _MOST_TAGS or len(name) > 63:
                return "kn:undefined"
            self._tags.add(name)
        return name


def _target(settings: ProxySettings) -> dict[str, str]:
    """The attributes of the resource, which OpenTelemetry's exporter shows as `target_info`."""
    labels = {
        "container_name": "queue-proxy",
        "k8s_namespace_name": settings.namespace,
        "k8s_pod_name": settings.pod,
        "kn_configuration_name": settings.configuration,
        "kn_revision_name": settings.revision,
        "kn_service_name": settings.service,
        "service_instance_id": settings.pod,
        "service_name": (
            settings.telemetry_name or settings.service or settings.configuration or settings.revision or settings.pod
        ),
        "service_version": __version__,
    }
    return {name: value for name, value in labels.items() if value}
