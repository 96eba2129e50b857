"""Headers: which keep requests apart, and what a merged call carries of its members'."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from knative_sponge.codec.base import Codec, Part, RequestHead
from knative_sponge.codec.headers import APART, FIELDS, Group, call_headers, header_key, share_headers
from knative_sponge.codec.json_array import JsonArrayCodec
from knative_sponge.codec.select import codec_for
from knative_sponge.codec.v1 import V1Codec
from knative_sponge.codec.v2.codec import V2Codec
from knative_sponge.core.batching.deadline import CLAIM_HEADERS
from knative_sponge.errors import SettingError
from knative_sponge.settings import ServingSettings

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
        (b"baggage", b"user=a"), (b"x-forwarded-user", b"a"), (b"x-forwarded-host", b"a.example"),
        (b"x-envoy-internal", b"true"), (b"x-envoy-ip-tags", b"a"), (b"x-envoy-downstream-service-cluster", b"a"),
        (b"x-envoy-of-tomorrow", b"a"),
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
        "traceparent", "tracestate", "b3", "x-b3-traceid", "x-request-id", "x-correlation-id", "user-agent",
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


LOST = sorted({name for row in FIELDS if row.group not in APART for name in row.names})
COUNTING = sorted({name for row in FIELDS if row.group in APART for name in row.names})


@pytest.mark.parametrize("name", LOST)
def test_what_the_table_calls_lost_keeps_nobody_apart(name: str) -> None:
    one, other = (RequestHead("POST", b"/", [*BASE, (name.encode(), value)]) for value in (b"1", b"2"))
    assert header_key(one.headers) == header_key(other.headers) == header_key(BASE)


@pytest.mark.parametrize(
    "name", [*COUNTING, "x-unheard-of", "x-envoy-unheard-of", "x-sponge-unheard-of", "x-b3-unheard-of"]
)
def test_what_the_table_does_not_call_lost_keeps_requests_apart(name: str) -> None:
    keys = {
        header_key([(b"a", b"b"), *((name.encode(), value) for value in values)]) for values in ([], [b"1"], [b"2"])
    }
    assert len(keys) == 3


def test_a_name_is_in_one_group() -> None:
    names = [name for row in FIELDS for name in row.names]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


def test_every_claim_of_a_deadline_is_known_as_one() -> None:
    claims = {name.decode() for name in CLAIM_HEADERS if not name.startswith(b"ce-")}
    assert claims <= {name for row in FIELDS if row.group is Group.DEADLINE for name in row.names}


def test_baggage_keeps_apart_but_for_members_that_number_a_trace() -> None:
    def key(baggage: bytes) -> object:
        return header_key([(b"host", b"h"), (b"baggage", baggage)])

    assert key(b"userId=alice") != key(b"userId=bob")
    assert key(b"userId=alice, sentry-trace_id=1,sentry-sampled=true") == key(b"userId=alice,sentry-trace_id=2")
    assert (
        key(b"sentry-trace_id=1, sentry-sample_rand=0.1") == key(b"sentry-trace_id=2") == header_key([(b"host", b"h")])
    )
    headers = [(b"baggage", b"sentry-trace_id=1, userId=alice")]
    assert call_headers(headers, 5)[0] == (b"baggage", b"userId=alice")


def test_an_answer_of_a_call_passes_on_no_frame_of_its_own() -> None:
    whole = [
        (b"content-length", b"9"),
        (b"connection", b"close"),
        (b"via", b"x"),
        (b"date", b"d"),
        (b"etag", b"e"),
        (b"x", b"y"),
    ]
    assert share_headers(whole) == [(b"date", b"d"), (b"x", b"y")]


def test_headers_that_a_setting_names_keep_requests_apart_and_reach_the_model_server() -> None:
    codec = codec_for("v1", ["x-forwarded-for", "user-agent", "host"])

    def parse(*extra: Pair) -> Part:
        return codec.parse(RequestHead("POST", b"/v1/models/m:predict", [*BASE, *extra]), b'{"instances":[[1,2]]}')

    mine, agent = (b"x-forwarded-for", b"1.1.1.1"), (b"user-agent", b"a")
    one, same, other = parse(mine, agent), parse(agent, mine), parse((b"x-forwarded-for", b"2.2.2.2"), agent)
    assert one.group == same.group
    assert len({one.group, other.group, parse(agent).group, parse(mine).group}) == 4
    headers = list(codec.merge([one, same]).headers)
    assert headers.count(mine) == headers.count(agent) == headers.count(BASE[0]) == 1
    assert codec.merge([one]).headers is one.head.headers


def test_a_setting_can_name_what_only_the_event_around_a_request_says() -> None:
    codec = codec_for("v1", ["ce-source"])
    event = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-type", b"t"), (b"content-type", b"application/json")]

    def parse(source: bytes) -> Part:
        head = RequestHead("POST", b"/v1/models/m:predict", [*event, (b"ce-source", source)])
        return codec.parse(head, b'{"instances":[[1,2]]}')

    assert parse(b"/a").group == parse(b"/a").group != parse(b"/b").group
    assert all(name != b"ce-source" for name, _ in codec.merge([parse(b"/a"), parse(b"/a")]).headers)


@pytest.mark.parametrize("text", ["", " ", "a b", "x,", "content-length", "Transfer-Encoding", "x:y", "ä", "x" * 65])
def test_only_names_of_fields_that_frame_nothing_can_be_named(text: str) -> None:
    with pytest.raises(SettingError, match=r"keep-apart: .*expected names of header fields"):
        ServingSettings.from_annotations({"knative-sponge.dev/keep-apart": text or ","})


def test_no_field_that_frames_a_message_can_be_named() -> None:
    for name in (name for row in FIELDS if row.group is Group.FRAME for name in row.names):
        with pytest.raises(SettingError):
            ServingSettings.from_annotations({"knative-sponge.dev/keep-apart": name})


KOURIER: list[Pair] = [
    (b"host", b"m.default.example.com"), (b"content-type", b"application/json"), (b"accept", b"*/*"),
    (b"x-forwarded-proto", b"http"), (b"x-envoy-expected-rq-timeout-ms", b"%d"), (b"x-request-id", b"id-%d"),
    (b"x-forwarded-for", b"10.0.0.%d, 10.1.0.9"), (b"forwarded", b"for=10.0.0.%d"), (b"user-agent", b"client/%d"),
    (b"k-proxy-request", b"activator"),
]  # fmt: skip
ISTIO: list[Pair] = [
    *KOURIER, (b"x-envoy-attempt-count", b"%d"), (b"x-envoy-external-address", b"10.0.0.%d"), (b"x-envoy-internal", b"true"),
    (b"x-envoy-decorator-operation", b"m.default.svc.cluster.local:80/*"), (b"x-envoy-peer-metadata", b"Ch%d"),
    (b"x-envoy-peer-metadata-id", b"router~10.1.0.9~gw-%d"), (b"x-b3-traceid", b"%d"), (b"x-b3-spanid", b"%d"),
    (b"x-b3-sampled", b"1"), (b"traceparent", b"00-%d-1-01"), (b"x-forwarded-client-cert", b"By=spiffe://c/m;Hash=a"),
]  # fmt: skip
CDN: list[Pair] = [
    *KOURIER, (b"cf-ray", b"%d"), (b"cf-connecting-ip", b"1.1.1.%d"), (b"x-real-ip", b"1.1.1.%d"),
    (b"x-original-forwarded-for", b"1.1.1.%d"), (b"cdn-loop", b"cloudflare"), (b"x-amzn-trace-id", b"Root=%d"),
]  # fmt: skip


@pytest.mark.parametrize("sent", [KOURIER, ISTIO, CDN], ids=["Kourier", "Istio", "nginx behind a CDN"])
def test_requests_of_different_clients_share_a_call_behind_an_ingress(
    case: tuple[Codec, Callable[..., Part]], sent: list[Pair]
) -> None:
    codec, _, body = next(one for one in CASES if one[0] is case[0])
    groups = set()
    for client in range(16):
        headers = [(name, value % client if b"%" in value else value) for name, value in sent]
        groups.add(codec.parse(RequestHead("POST", TARGETS[codec.name], headers), body).group)
    assert len(groups) == 1


TARGETS = {codec.name: target for codec, target, _ in CASES}
