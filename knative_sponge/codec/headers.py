"""Which headers requests must share to share a call, and what merged calls and split answers carry. No bodies.

The rule: two requests may merge when every header of theirs is equal, by name, value and order of repeats, except the names
in `FIELDS` that are lost: they speak of one request, of its way, or of telemetry. Whatever is not in the table keeps requests
apart, so what says who the *user* is, or could change an answer, never reaches another user's.

A merged call carries the headers that its members share, and no header of one member alone: a trace, deadline or address of
one request would be wrong for the others. It asks for `accept-encoding: identity`, because a compressed answer cannot be
split. A server that refuses such a call (4xx), since it misses an address for instance, is asked again for each member alone,
with all its headers. A server that answers by a lost header without refusing needs the setting `keep-apart` (`codec.apart`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from knative_sponge.codec.base import Headers, RequestHead

JSON_LENGTH: Final = b"inference-header-content-length"
"""Says where the JSON of a V2 message ends and its binary tensors begin (binary tensor data extension)."""


class Group(StrEnum):
    """What a header speaks of, and with that what happens to it."""

    USER = "user"
    """Who asks, for whom, and how they were let in: keeps requests apart."""
    CONTENT = "content"
    """What the answer depends on: keeps requests apart."""
    FRAME = "frame"
    """One message on one connection: made anew for each call."""
    DEADLINE = "deadline"
    """When one request is needed: the proxy has read it, and lost after that."""
    TRACE = "trace"
    """The number of one request, or of a trace: lost."""
    ADDRESS = "address"
    """Where a request came from and which way, as some proxy saw it: lost."""
    CLIENT = "client"
    """The program that asks: lost."""


APART: Final = frozenset({Group.USER, Group.CONTENT})
"""Groups whose headers keep requests apart, as every header does that the table does not name."""


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the table: lower-case names, what they speak of, why, and who says so."""

    names: tuple[str, ...]
    group: Group
    why: str
    source: str


FIELDS: Final = (
    Field(("authorization", "proxy-authorization", "cookie"), Group.USER, "the user's credentials", "RFC 9110 §11, RFC 6265"),
    Field(("x-api-key", "x-forwarded-user", "x-forwarded-email", "x-auth-request-user"), Group.USER,
          "the user, as a gateway has proven them", "common use"),
    Field(("x-forwarded-client-cert",), Group.USER, "the caller's certificate; the same for all who come through one gateway",
          "Envoy"),
    Field(("baggage",), Group.USER,
          "properties that the application gives a request, such as a user or an experiment; members of Sentry's, which number "
          "the trace, are lost", "W3C Baggage"),
    Field(("x-envoy-internal", "x-envoy-ip-tags", "x-envoy-auth-failure-mode-allowed", "x-envoy-downstream-service-cluster"),
          Group.USER, "what Envoy found about the caller; few values, so batches hardly suffer", "Envoy, header sanitizing"),
    Field(("host", "accept", "accept-language", "content-type", "content-encoding", "range", "prefer", "idempotency-key"),
          Group.CONTENT, "choose the answer, or its form", "RFC 9110"),
    Field(("x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "x-envoy-original-path", "x-envoy-original-host"),
          Group.CONTENT, "the address that was asked, which may name a tenant; the same for all who ask it", "Envoy"),
    Field(("connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
           "upgrade"), Group.FRAME, "how one message stands on one connection", "RFC 9110 §7.6.1, RFC 9112"),
    Field(("accept-encoding", "inference-header-content-length", "date"), Group.FRAME,
          "of one body; a merged call asks for `identity`", "RFC 9110 §12.5.3, Open Inference Protocol"),
    Field(("x-sponge-deadline", "x-sponge-slo-ms", "x-sponge-sent", "x-slo-ttft-ms", "x-envoy-expected-rq-timeout-ms",
           "grpc-timeout", "x-request-start", "x-queue-start"), Group.DEADLINE,
          "a deadline, a budget or a send time", "[deadlines.md](deadlines.md)"),
    Field(("x-envoy-attempt-count", "x-envoy-is-timeout-retry", "x-envoy-max-retries", "x-envoy-retry-on",
           "x-envoy-retry-grpc-on", "x-envoy-retriable-status-codes", "x-envoy-retriable-header-names",
           "x-envoy-hedge-on-per-try-timeout", "x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms",
           "x-envoy-upstream-rq-timeout-alt-response", "x-envoy-upstream-stream-duration-ms",
           "x-envoy-upstream-alt-stat-name"), Group.DEADLINE,
          "which try this is, and how Envoy is to try", "Envoy, router filter"),
    Field(("traceparent", "tracestate"), Group.TRACE, "trace", "W3C Trace Context"),
    Field(("b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"), Group.TRACE, "trace",
          "Zipkin"),
    Field(("uber-trace-id", "jaeger-debug-id", "x-ot-span-context", "ot-tracer-traceid", "ot-tracer-spanid",
           "ot-tracer-sampled", "grpc-trace-bin", "sw8"), Group.TRACE, "trace",
          "Jaeger, LightStep, gRPC, SkyWalking"),
    Field(("x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority", "x-datadog-origin", "x-datadog-tags",
           "sentry-trace", "newrelic", "elastic-apm-traceparent"), Group.TRACE, "trace",
          "Datadog, Sentry, New Relic, Elastic"),
    Field(("x-amzn-trace-id", "x-amz-cf-id", "x-cloud-trace-context", "x-azure-ref", "cf-ray", "fastly-ff"), Group.TRACE,
          "number of a request or trace", "AWS, Google, Azure, Cloudflare, Fastly"),
    Field(("x-request-id", "x-correlation-id", "x-client-trace-id", "x-ms-client-request-id"), Group.TRACE,
          "number of a request", "Envoy, common use"),
    Field(("x-envoy-decorator-operation", "x-envoy-force-trace", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id"),
          Group.TRACE, "what telemetry calls a request and its sender", "Envoy, Istio"),
    Field(("x-forwarded-for", "forwarded", "x-real-ip", "x-original-forwarded-for", "x-client-ip", "x-cluster-client-ip",
           "true-client-ip", "cf-connecting-ip", "cf-connecting-ipv6", "fastly-client-ip", "x-azure-clientip",
           "x-azure-socketip", "x-envoy-external-address", "x-envoy-downstream-service-node"), Group.ADDRESS,
          "the client's address; an ingress sets it on every request, so it would keep all clients apart",
          "RFC 7239, Envoy, nginx, Cloudflare, Akamai, Azure"),
    Field(("via", "cdn-loop", "k-proxy-request"), Group.ADDRESS, "proxies on the way, Knative's activator among them",
          "RFC 9110 §7.6.3, RFC 8586, Knative"),
    Field(("user-agent",), Group.CLIENT, "the program; not the user, and anybody may write it", "RFC 9110 §10.1.5"),
)  # fmt: skip
"""The one place that says which header does what to a merge; docs/merging.md shows it."""

_BAGGAGE: Final = b"baggage"
_TRACE_MEMBERS: Final = b"sentry-"
"""How members of baggage begin that number a trace, and so differ for each request."""

_LOST: Final = frozenset(name.encode() for row in FIELDS if row.group not in APART for name in row.names)
_FRAME: Final = frozenset(name.encode() for row in FIELDS if row.group is Group.FRAME for name in row.names)

# Headers of the whole merged answer that would be false on a share of it, or would belong to another client.
_WHOLE_ANSWER: Final = (_FRAME - {b"date", b"accept-encoding"}) | {
    b"content-digest",
    b"content-md5",
    b"digest",
    b"etag",
    JSON_LENGTH,
    b"repr-digest",
    b"set-cookie",
    b"via",
}


def shared_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that must be equal for two requests to merge, in the order received."""
    shared = [pair for pair in headers if pair[0] not in _LOST]
    for name, _ in shared:
        if name == _BAGGAGE:
            return list(_without_traces(shared))
    return shared


def _without_traces(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """The same, but for the members of baggage that number a trace."""
    for name, value in headers:
        if name == _BAGGAGE:
            members = [one for one in value.split(b",") if not one.lstrip().startswith(_TRACE_MEMBERS)]
            value = b",".join(members).strip()  # noqa: PLW2901
            if not value:
                continue
        yield name, value


def header_key(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """`shared_headers` as part of a group: names in any order, repeats of one name in theirs."""
    return tuple(sorted(shared_headers(headers), key=lambda pair: pair[0]))


def call_headers(headers: Headers, length: int) -> list[tuple[bytes, bytes]]:
    """Headers of a merged call of `length` body bytes, from any member's."""
    return [*shared_headers(headers), (b"accept-encoding", b"identity"), (b"content-length", b"%d" % length)]


def share_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """A merged answer's headers that hold for every share; the caller adds each share's `content-length`."""
    return [(name, value) for name, value in headers if name not in _WHOLE_ANSWER]


def header(headers: Headers, name: bytes) -> bytes | None:
    """The value of a header; repeats are joined by commas; None when absent."""
    values = [value for candidate, value in headers if candidate == name]
    return b",".join(values) if values else None


def is_encoded(headers: Headers) -> bool:
    """Whether the body is compressed, so that nothing here can read it."""
    return header(headers, b"content-encoding") not in (None, b"", b"identity")


def says_json(head: RequestHead) -> bool:
    """Whether a body that is not JSON is the client's mistake: JSON is declared, or nothing is."""
    declared = header(head.headers, b"content-type")
    return declared is None or b"json" in declared.lower()
