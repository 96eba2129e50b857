"""One line per request, shaped by the operator's template (docs/knative-contract.md §1.13); formats, and waits for nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from knative_sponge.proxy.knative.log_template import Template, Value
from knative_sponge.proxy.knative.observe import ExchangeRecord, first
from knative_sponge.settings import ProxySettings

logger = logging.getLogger(__name__)

DEFAULT: Final = (
    '{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", '
    '"requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "responseSize": "{{.Response.Size}}", '
    '"userAgent": "{{js .Request.UserAgent}}", "remoteIp": "{{js .Request.RemoteAddr}}", '
    '"serverIp": "{{.Revision.PodIP}}", "referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", '
    '"protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}'
)
"""Knative's own default; it stands in for a template that is not understood."""


class RequestLog:
    """Observer that writes a line for each exchange; `probes` says whether also for probes.

    write: takes a line with its end, and must not block.
    """

    def __init__(self, template: str, settings: ProxySettings, write: Callable[[bytes], None], *, probes: bool) -> None:
        fields = _FIELDS | _revision(settings)
        try:
            self._template = Template(template, fields, _header)
        except ValueError as error:
            logger.warning("request log template: %s; the default one is used", error)
            template = DEFAULT
            self._template = Template(template, fields, _header)
        self._end = "" if template.endswith("\n") else "\n"
        self._write = write
        self._probes = probes

    def __call__(self, record: ExchangeRecord) -> None:
        """Log one exchange."""
        if self._probes or not record.probe:
            self._write((self._template.render(record) + self._end).encode("utf-8", "surrogateescape"))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _header(record: ExchangeRecord, name: str) -> str:
    # Go keeps Host out of the fields.
    return "" if name == "host" else _text(first(record.headers, name.encode("utf-8", "replace")))


def _content_length(record: ExchangeRecord) -> Value:
    """-1 is unknown, as for a chunked body."""
    length = first(record.headers, b"content-length")
    if length.isdigit():
        return int(length)
    return -1 if first(record.headers, b"transfer-encoding") else 0


def _remote(record: ExchangeRecord) -> str:
    client = record.scope["client"]
    if not client:
        return ""
    host, port = client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _version(record: ExchangeRecord) -> tuple[str, str]:
    major, _, minor = record.scope["http_version"].partition(".")
    return major, minor or "0"


def _trace(record: ExchangeRecord) -> str:
    parts = _header(record, "traceparent").split("-", 2)
    return parts[1] if len(parts) > 1 else _header(record, "x-b3-traceid")


_FIELDS: Final[dict[str, Callable[[ExchangeRecord], Value]]] = {
    ".Request.Method": lambda record: str(record.scope["method"]),
    ".Request.RequestURI": lambda record: _text(record.scope["sponge.target"]),
    ".Request.URL": lambda record: _text(record.scope["sponge.target"]),
    ".Request.URL.Path": lambda record: str(record.scope["path"]),
    ".Request.URL.RawQuery": lambda record: _text(record.scope["query_string"]),
    ".Request.ContentLength": _content_length,
    ".Request.UserAgent": lambda record: _header(record, "user-agent"),
    ".Request.Referer": lambda record: _header(record, "referer"),
    ".Request.RemoteAddr": _remote,
    ".Request.Host": lambda record: _text(first(record.headers, b"host")),
    ".Request.Proto": lambda record: "HTTP/{}.{}".format(*_version(record)),
    ".Request.ProtoMajor": lambda record: _version(record)[0],
    ".Request.ProtoMinor": lambda record: _version(record)[1],
    ".Response.Code": lambda record: record.status,
    ".Response.Size": lambda record: record.sent,
    ".Response.Latency": lambda record: record.seconds,
    ".TraceID": _trace,
}


def _revision(settings: ProxySettings) -> dict[str, Callable[[ExchangeRecord], Value]]:
    names = {
        "Name": settings.revision,
        "Namespace": settings.namespace,
        "Service": settings.service,
        "Configuration": settings.configuration,
        "PodName": settings.pod,
        "PodIP": settings.pod_ip,
    }
    return {f".Revision.{name}": lambda _seen, value=value: value for name, value in names.items()}  # type: ignore[misc]
