"""Which headers requests must share to share a call, and what merged calls and split answers carry. No bodies.

The rule: two requests may merge when every header of theirs is equal, by name, value and order of repeats, except those
known to speak of one request, one hop or telemetry (the lists below). Unknown headers count, so what could change an
answer (`authorization`, `cookie`, `accept`, `content-type`, `x-api-key`, `ce-id`, an application's own) keeps requests
apart.

A merged call carries the headers that its members share, and no header of one member alone: a trace, deadline or address
of one request would be wrong for the others. It asks for `accept-encoding: identity`, because a compressed answer cannot
be split.
"""

from __future__ import annotations

from knative_sponge.codec.base import Headers, RequestHead

JSON_LENGTH = b"inference-header-content-length"
"""Says where the JSON of a V2 message ends and its binary tensors begin (binary tensor data extension)."""

# RFC 9110 §7.6.1, and what frames one body.
_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
    }
)
_ONE_REQUEST = _HOP | {
    b"accept-encoding",
    b"baggage",
    b"b3",
    b"cdn-loop",
    b"date",
    b"forwarded",
    b"grpc-timeout",
    b"grpc-trace-bin",
    JSON_LENGTH,
    b"sentry-trace",
    b"traceparent",
    b"tracestate",
    b"uber-trace-id",
    b"user-agent",
    b"x-amzn-trace-id",
    b"x-cloud-trace-context",
    b"x-correlation-id",
    b"x-forwarded-for",
    b"x-ot-span-context",
    b"x-queue-start",
    b"x-real-ip",
    b"x-request-id",
    b"x-request-start",
    b"x-slo-ttft-ms",
}
_ONE_REQUEST_PREFIXES = (b"x-b3-", b"x-datadog-", b"x-envoy-", b"x-sponge-")

# Headers of the whole merged answer that would be false on a share of it, or would belong to another client.
_WHOLE_ANSWER = _HOP | {
    b"content-digest",
    b"content-md5",
    b"digest",
    b"etag",
    JSON_LENGTH,
    b"repr-digest",
    b"set-cookie",
}


def shared_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that must be equal for two requests to merge, in the order received."""
    return [
        (name, value)
        for name, value in headers
        if name not in _ONE_REQUEST and not name.startswith(_ONE_REQUEST_PREFIXES)
    ]


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
