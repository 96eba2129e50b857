"""Headers: which keep requests apart, and what a merged call carries of its members'."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from knative_sponge.codec.base import Codec, Part, RequestHead
from knative_sponge.codec.json_array import JsonArrayCodec
from knative_sponge.codec.v1 import V1Codec
from knative_sponge.codec.v2.codec import V2Codec

Pair = tuple[bytes, bytes]
BASE: list[Pair] = [(b"host", b"m.example"), (b"content-type", b"application/json")]
CASES: list[tuple[Codec, bytes, bytes]] = [
    (V2Codec(), b"/v2/models/m/infer", b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'),
    (V1Codec(), b"/v1/models/m:predict", b'{"instances":[[1,2]]}'),
    (JsonArrayCodec(), b"/", b"[[1,2]]"),
]


@pytest.fixture(params=CASES, ids=lambda case: str(case[0].name))
def case(request: pytest.FixtureRequest) -> tuple[Codec, Callable[..., Part]]:
    codec, target, body = request.param
    return codec, lambda *extra: codec.parse(RequestHead("POST", target, [*BASE, *extra]), body)


@pytest.mark.parametrize(
    "extra",
    [
        (b"authorization", b"Bearer x"), (b"proxy-authorization", b"Basic x"), (b"cookie", b"a=1"),
        (b"x-api-key", b"k"), (b"accept", b"text/html"), (b"accept-language", b"de"), (b"ce-id", b"1"),
        (b"x-tenant", b"a"), (b"idempotency-key", b"1"), (b"prefer", b"wait"), (b"host", b"other.example"),
        (b"content-type", b"text/plain"), (b"x-forwarded-client-cert", b"Subject=a"), (b"range", b"bytes=0-1"),
    ],
    ids=lambda pair: str(pair[0].decode()),
)  # fmt: skip
def test_a_header_that_may_change_the_answer_keeps_requests_apart(
    case: tuple[Codec, Callable[..., Part]], extra: Pair
) -> None:
    _, parse = case
    assert parse(extra).group == parse(extra).group
    assert parse(extra).group != parse().group
    assert parse(extra).group != parse((extra[0], b"another")).group


@pytest.mark.parametrize(
    "name",
    [
        "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-request-id", "x-correlation-id", "user-agent",
        "x-forwarded-for", "forwarded", "via", "x-envoy-expected-rq-timeout-ms", "x-sponge-deadline", "x-sponge-sent",
        "x-sponge-slo-ms", "x-slo-ttft-ms", "grpc-timeout", "x-request-start", "content-length", "accept-encoding",
        "connection", "expect", "transfer-encoding", "te",
    ],
)  # fmt: skip
def test_a_header_of_one_request_keeps_nobody_apart_and_goes_to_no_merged_call(
    case: tuple[Codec, Callable[..., Part]], name: str
) -> None:
    codec, parse = case
    one, other = parse((name.encode(), b"mine")), parse((name.encode(), b"yours"))
    assert one.group == other.group == parse().group
    headers = list(codec.merge([one, other]).headers)
    assert all(value not in (b"mine", b"yours") for _, value in headers)


def test_a_merged_call_carries_what_its_members_share(case: tuple[Codec, Callable[..., Part]]) -> None:
    codec, parse = case
    parts = [parse((b"accept-encoding", b"gzip"), (b"authorization", b"a"), (b"x-request-id", b"7")) for _ in range(3)]
    call = codec.merge(parts)
    assert list(call.headers) == [
        *BASE,
        (b"authorization", b"a"),
        (b"accept-encoding", b"identity"),
        (b"content-length", b"%d" % len(call.body)),
    ]
    assert (call.method, call.target) == (parts[0].head.method, parts[0].head.target)


def test_names_may_come_in_any_order_but_repeats_of_one_name_may_not(case: tuple[Codec, Callable[..., Part]]) -> None:
    _, parse = case
    first, second = (b"x-a", b"1"), (b"x-b", b"2")
    assert parse(first, second).group == parse(second, first).group
    one, two = (b"x-a", b"1"), (b"x-a", b"2")
    assert parse(one, two).group != parse(two, one).group
    assert parse(one, two).group != parse(one).group


def test_requests_of_another_method_or_target_are_kept_apart() -> None:
    codec = JsonArrayCodec()
    groups = {
        codec.parse(RequestHead(method, target, BASE), b"[1]").group
        for method, target in (("POST", b"/a"), ("PUT", b"/a"), ("POST", b"/b"), ("POST", b"/a?x=1"))
    }
    assert len(groups) == 4
