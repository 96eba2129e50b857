"""Invariant: whatever bytes arrive, requests are parsed or a BadRequest, answers are split or an UpstreamError."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.codec.base import Answer, Call, Codec, Part, RequestHead
from knative_sponge.codec.select import codec_for
from knative_sponge.errors import BadRequest, UpstreamBroken, UpstreamMismatch
from tests.codec.servers import JSON_LENGTH, V2Server, array_server, v1_server

TENSOR = b'{"name":"x","shape":[2,2],"datatype":"FP32","data":[1.10,-0,NaN,1e400]}'
STRING = b'{"name":"y","shape":[2,1],"datatype":"BYTES","data":[["a\\",b"],["\\ud83d\\ude00"]]}'
BINARY = b'{"name":"z","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}'
V2_BODY = b'{"id":"i","inputs":[' + TENSOR + b", " + STRING + b'],"parameters":{"data":[1]}}'
V2_FRAMED = b'{"inputs":[' + TENSOR + b"," + BINARY + b'],"outputs":[{"name":"z_echo"},{"name":"x_echo"}]}'
V2 = b"/v2/models/m/infer"
V1 = b"/v1/models/m:predict"
SEEDS: dict[str, tuple[str, bytes, Sequence[tuple[bytes, bytes]], bytes]] = {
    "v2": ("v2", V2, (), V2_BODY),
    "v2 framed": ("v2", V2, ((JSON_LENGTH, b"%d" % len(V2_FRAMED)),), V2_FRAMED + b"abcd"),
    "v1": ("v1", V1, (), b'{"instances":[{"a":[1,2.0],"b":"],"},{"a":[3,4],"b":""}],"signature_name":"s"}'),
    "array": ("json-array", b"/", (), b'[[1.10,[true,null]],[2,[false,null]]]'),
}  # fmt: skip
SPLICES = (
    b"",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b",",
    b":",
    b"\\",
    b"1",
    b"-",
    b"NaN",
    b"null",
    b'"data":[1]',
    b"\x7f0",
    b"\xff",
)


def parts_of(codec: Codec, head: RequestHead, body: bytes) -> list[Part]:
    return [codec.parse(head, body), codec.parse(head, body)]


def check_request(codec: Codec, head: RequestHead, body: bytes) -> None:
    try:
        parts = parts_of(codec, head, body)
    except BadRequest:
        return
    single = codec.merge(parts[:1])
    assert single == Call(head.method, head.target, head.headers, body)
    assert parts[0].rows >= 1
    if parts[0].group == parts[1].group:
        call = codec.merge(parts)
        lengths = {name: int(value) for name, value in call.headers if name.endswith(b"content-length")}
        assert lengths[b"content-length"] == len(call.body)
        merged = RequestHead(call.method, call.target, call.headers)
        assert codec.parse(merged, call.body).rows == 2 * parts[0].rows


def check_answer(codec: Codec, parts: Sequence[Part], answer: Answer) -> None:
    try:
        shares = codec.split(parts, answer)
    except (UpstreamBroken, UpstreamMismatch):
        return
    assert len(shares) == len(parts)
    assert all(dict(share.headers)[b"content-length"] == b"%d" % len(share.body) for share in shares)


def spoil(body: bytes, edits: Sequence[tuple[float, int, bytes]]) -> bytes:
    for where, drop, splice in edits:
        at = int(where * len(body))
        body = body[:at] + splice + body[at + drop :]
    return body


edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(SPLICES) | st.binary(max_size=2)),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=500)
@given(edits=edits)
def test_a_spoiled_request_is_parsed_or_refused(name: str, edits: list[tuple[float, int, bytes]]) -> None:
    protocol, target, headers, body = SEEDS[name]
    check_request(codec_for(protocol), RequestHead("POST", target, headers), spoil(body, edits))


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=500)
@given(edits=edits, rows=st.booleans())
def test_a_spoiled_answer_is_split_or_refused(name: str, edits: list[tuple[float, int, bytes]], rows: bool) -> None:
    protocol, target, headers, body = SEEDS[name]
    codec = codec_for(protocol)
    parts = parts_of(codec, RequestHead("POST", target, headers), body)
    servers: dict[str, Callable[[Call], Answer]] = {
        "v2": V2Server(nested=rows),
        "v1": v1_server,
        "json-array": array_server,
    }
    server = servers[protocol]
    answer = server(codec.merge(parts))
    check_answer(codec, parts, Answer(200, answer.headers, spoil(answer.body, edits)))


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=300)
@given(body=st.binary(max_size=60), length=st.none() | st.integers(-1, 70))
def test_arbitrary_bytes_are_parsed_or_refused_and_split_or_refused(name: str, body: bytes, length: int | None) -> None:
    protocol, target, headers, valid = SEEDS[name]
    codec = codec_for(protocol)
    framing = () if length is None else ((JSON_LENGTH, b"%d" % length),)
    check_request(codec, RequestHead("POST", target, framing), body)
    parts = parts_of(codec, RequestHead("POST", target, headers), valid)
    assert parts[0].group == parts[1].group
    check_answer(codec, parts, Answer(200, framing, body))


def test_spoiled_requests_still_exercise_the_merge() -> None:
    """The fuzzer would prove nothing if every spoiled body were refused or sent alone."""
    rng = random.Random(1)
    codec = codec_for("v2")
    head = RequestHead("POST", V2, ())
    merged = 0
    for _ in range(300):
        body = spoil(V2_BODY, [(rng.random(), rng.randint(0, 1), rng.choice((b"1", b" ", b"", b"a")))])
        try:
            one, other = parts_of(codec, head, body)
        except BadRequest:
            continue
        merged += one.group == other.group
    assert merged > 30
