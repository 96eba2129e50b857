"""Invariant: a body or an answer costs a small multiple of its bytes and of the time to read it, whatever is in it.

Sizes are those of one process that parses or splits it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from knative_sponge.codec.base import Answer, Codec, Part, RequestHead
from knative_sponge.codec.select import codec_for
from knative_sponge.codec.v1 import V1Codec
from knative_sponge.codec.v2.codec import V2Codec
from knative_sponge.errors import BadRequest, RequestFailed, UpstreamBroken
from tests.hostile.dear import Cost, at_most, cost_of

LENGTH = 4 * 2**20
MOST_CPU_S = 1.0
"""The slowest takes 0.2 s: a quarter of a million strings, or a million elements of binary BYTES."""
MOST_BYTES = 10 * LENGTH
"""The largest takes five times what was received. One object per element took thirty times and more."""

JSON_TYPE = (b"content-type", b"application/json")
EVENT_TYPE = (b"content-type", b"application/cloudevents+json")
V1, V2 = b"/v1/models/m:predict", b"/v2/models/m/infer"
EVENT = b'{"specversion":"1.0","id":"i","source":"s","type":"t",'
BYTES = b'{"name":"x","datatype":"BYTES",'
DIMENSIONS = b",".join([b"9" * 18] * (LENGTH // 19))


def full(before: bytes, one: bytes, after: bytes) -> bytes:
    """`before`, as many of `one` between commas as fit, and `after`."""
    count = (LENGTH - len(before) - len(after)) // (len(one) + 1)
    return before + (one + b",") * (count - 1) + one + after


def keys(before: bytes, after: bytes, value: bytes = b"0") -> bytes:
    """`before`, as many members of different names as fit, and `after`."""
    count = (LENGTH - len(before) - len(after)) // (len(value) + 10)
    return before + b",".join(b'"%06x":%b' % (number, value) for number in range(count)) + after


@dataclass(frozen=True)
class Request:
    protocol: str
    target: bytes
    body: Callable[[], bytes]
    headers: tuple[tuple[bytes, bytes], ...] = (JSON_TYPE,)

    def parse(self) -> tuple[int, bool]:
        part = codec_for(self.protocol).parse(RequestHead("POST", self.target, self.headers), self.body())
        return part.rows, part.detail is not None


def v1(body: Callable[[], bytes]) -> Request:
    return Request("v1", V1, body)


def v2(body: Callable[[], bytes]) -> Request:
    return Request("v2", V2, body)


def event(body: Callable[[], bytes], protocol: str = "cloudevents") -> Request:
    return Request(protocol, V1, body, (EVENT_TYPE,))


def binary_bytes() -> Request:
    size = LENGTH // 4 * 4
    json = b'{"inputs":[%b"shape":[1,%d],"parameters":{"binary_data_size":%d}}]}' % (BYTES, size // 4, size)
    length = (b"inference-header-content-length", b"%d" % len(json))
    return Request("v2", V2, lambda: json + b"\0" * size, (JSON_TYPE, length))


REQUESTS: Mapping[str, Request] = {
    "rows of one number": v1(lambda: full(b'{"instances":[', b"0", b"]}")),
    "a first row unlike all the others": v1(lambda: full(b'{"instances":[[' + b"0," * 2000 + b"0],", b"0", b"]}")),
    "rows of one element": v1(lambda: full(b'{"instances":[', b"[0]", b"]}")),
    "empty rows": v1(lambda: full(b'{"instances":[', b"[]", b"]}")),
    "empty rows with blanks": v1(lambda: full(b'{"instances":[', b"[ ]", b"]}")),
    "a row of empty arrays": v1(lambda: full(b'{"instances":[[', b"[]", b"]]}")),
    "empty strings": v1(lambda: full(b'{"instances":[', b'""', b"]}")),
    "as many strings as are looked at": v1(lambda: full(b'{"instances":[', b'"123456789012345"', b"]}")),
    "rows that are objects": v1(lambda: full(b'{"instances":[', b'{"":0}', b"]}")),
    "rows that are empty objects": v1(lambda: full(b'{"instances":[', b"{}", b"]}")),
    "a row of very many keys": v1(lambda: keys(b'{"instances":[{', b"}]}")),
    "very many keys beside the instances": v1(lambda: keys(b'{"instances":[1],', b"}")),
    "one key again and again": v1(lambda: full(b'{"instances":[1],', b'"a":0', b"}")),
    "very many objects with instances": v1(lambda: full(b'{"x":[', b'{"instances":[1]}', b'],"instances":[1]}')),
    "numbers that are none": v1(lambda: full(b'{"instances":[', b"NaN", b"]}")),
    "deep nesting": v1(lambda: b'{"instances":' + b"[" * (LENGTH // 2) + b"]" * (LENGTH // 2) + b"}"),
    "a giant string with one letter of four bytes": v1(
        lambda: b'{"instances":["\xf0\x9f\x98\x80' + b"a" * LENGTH + b'"]}'
    ),
    "lone surrogates": v1(lambda: full(b'{"instances":[', b'"\\ud800"', b"]}")),
    "escaped quotes before colons": v1(lambda: b'{"instances":["' + b'\\":' * (LENGTH // 3) + b'"]}'),
    "a shape of very many dimensions": v2(lambda: b'{"inputs":[%b"data":[1],"shape":[%b]}]}' % (BYTES, DIMENSIONS)),
    "very many inputs": v2(lambda: full(b'{"inputs":[', b"{}", b"]}")),
    "very many inputs with a member": v2(lambda: full(b'{"inputs":[', b'{"":0}', b"]}")),
    "very many inputs with data": v2(lambda: full(b'{"inputs":[', b'{"data":[0]}', b"]}")),
    "very many parameters": v2(lambda: keys(b'{"inputs":[%b"shape":[1],"data":["a"],"parameters":{' % BYTES, b"}}]}")),
    "very many strings": v2(lambda: full(b'{"inputs":[%b"shape":[1,1],"data":[' % BYTES, b'""', b"]}]}")),
    "very many rows of one string": v2(lambda: full(b'{"inputs":[%b"shape":[9,1],"data":[' % BYTES, b'[""]', b"]}]}")),
    "a giant name": v2(
        lambda: b'{"inputs":[{"name":"' + b"a" * LENGTH + b'","shape":[2],"datatype":"FP32","data":[1]}]}'
    ),
    "binary elements": binary_bytes(),
    "an array of numbers": Request("json-array", b"/", lambda: full(b"[", b"0", b"]")),
    "an object instead of rows": Request("json-array", b"/", lambda: keys(b"{", b"}")),
    "very many attributes": event(lambda: keys(EVENT, b"}")),
    "a giant attribute": event(lambda: EVENT + b'"x":"\xf0\x9f\x98\x80' + b"a" * LENGTH + b'"}'),
    "data of very many keys": event(lambda: keys(EVENT + b'"data":{', b"}}")),
    "data in base64": event(lambda: EVENT + b'"data_base64":"' + b"AAAA" * (LENGTH // 4) + b'"}'),
    "data with very many rows": event(lambda: full(EVENT + b'"data":{"instances":[', b'{"a":0}', b"]}}"), "v1"),
}


def check(cost: Cost) -> None:
    assert cost.cpu_s < MOST_CPU_S
    assert cost.grown_bytes < MOST_BYTES


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_costs_a_small_multiple_of_its_bytes(name: str) -> None:
    request = REQUESTS[name]
    body = request.body()
    held = Request(request.protocol, request.target, lambda: body, request.headers)
    cost = cost_of(held.parse, most_cpu_s=5 * MOST_CPU_S)
    check(cost)
    assert isinstance(cost.outcome, tuple) or "BadRequest" in str(cost.outcome)
    if isinstance(cost.outcome, str):
        assert len(cost.outcome) < 500


def parts_of(codec: Codec, target: bytes, body: bytes, count: int) -> list[Part]:
    return [codec.parse(RequestHead("POST", target, [JSON_TYPE]), body) for _ in range(count)]


def v1_answer(body: bytes, count: int = 4) -> Sequence[int]:
    parts = parts_of(V1Codec(), V1, b'{"instances":[1]}', count)
    return [len(share.body) for share in V1Codec().split(parts, Answer(200, [JSON_TYPE], body))]


def v2_answer(body: bytes, count: int = 4) -> Sequence[int]:
    parts = parts_of(V2Codec(), V2, b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}', count)
    return [len(share.body) for share in V2Codec().split(parts, Answer(200, [JSON_TYPE], body))]


def strings(each: int) -> bytes:
    return b'{"outputs":[%b"shape":[4,%d],"data":[%b]}]}' % (BYTES, each, b",".join([b'""'] * 4 * each))


ONE_OUTPUT = b'{"name":"y","datatype":"FP32","shape":[2000],"data":[%b]}' % b",".join([b"1"] * 2000)

ANSWERS: Mapping[str, tuple[Callable[[bytes], Sequence[int]], Callable[[], bytes]]] = {
    "far more rows than were asked": (v1_answer, lambda: full(b'{"predictions":[', b"0", b"]}")),
    "a giant list beside the rows": (v1_answer, lambda: full(b'{"predictions":[0,0,0,0],"x":[', b"0", b"]}")),
    "very many keys beside the rows": (v1_answer, lambda: keys(b'{"predictions":[0,0,0,0],', b"}")),
    "very many lists beside the rows": (v1_answer, lambda: keys(b'{"predictions":[0,0,0,0],', b"}", b"[0,0,0,0]")),
    "a giant text for each of very many": (
        lambda body: v1_answer(body, 1000),
        lambda: b'{"predictions":[' + b"0," * 999 + b'0],"x":"' + b"a" * LENGTH + b'"}',
    ),
    "an output of very many dimensions": (
        v2_answer,
        lambda: b'{"outputs":[%b"data":[1],"shape":[%b]}]}' % (BYTES, DIMENSIONS),
    ),
    "an output of very many strings": (v2_answer, lambda: strings(LENGTH // 12)),
    "very many outputs": (v2_answer, lambda: full(b'{"outputs":[', b"{}", b"]}")),
    "many outputs for each of very many": (
        lambda body: v2_answer(body, 2000),
        lambda: b'{"outputs":[' + b",".join([ONE_OUTPUT] * 500) + b"]}",
    ),
    "an output of a giant name": (
        lambda body: v2_answer(body, 1000),
        lambda: full(b'{"outputs":[{"name":"' + b"a" * LENGTH + b'","shape":[1000],"data":[', b"1", b"]}]}"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_costs_a_small_multiple_of_its_bytes(name: str) -> None:
    split, make = ANSWERS[name]
    body = make()
    check(cost_of(lambda: split(body), most_cpu_s=5 * MOST_CPU_S))


def test_the_shares_of_an_answer_of_very_many_strings_are_right() -> None:
    each = 100_000
    with at_most(MOST_CPU_S):
        assert (
            v2_answer(strings(each))
            == [len(b'{"outputs":[%b"shape":[1,%d],"data":[%b]}]}' % (BYTES, each, b",".join([b'""'] * each)))] * 4
        )


def test_very_many_strings_more_or_less_than_the_shape_says_are_refused() -> None:
    for each in (99_999, 100_001):
        wrong = strings(100_000).replace(b"[4,100000]", b"[4,%d]" % each)
        with (
            at_most(MOST_CPU_S),
            pytest.raises(RequestFailed, match=r"output 'x' of shape \[4, \d+\]: (fewer|other) than"),
        ):
            v2_answer(wrong)


def test_rows_of_very_many_keys_are_merged_all_the_same() -> None:
    row = b"{%b}" % b",".join(b'"k%d":%d' % (number, number) for number in range(50))
    body = b'{"signature_name":"s","instances":[%b]}' % b",".join([row] * 2100)
    codec = V1Codec()
    parts = parts_of(codec, V1, body, 2)
    assert [part.rows for part in parts] == [2100, 2100]
    assert parts[0].group == parts[1].group
    merged = b'{"instances":[%b],"signature_name":"s"}' % b",".join([row] * 4200)
    assert codec.merge(parts).body == merged
    answer = Answer(200, [JSON_TYPE], b'{"predictions":[%b],"model":"m"}' % b",".join([row] * 4200))
    assert [share.body for share in codec.split(parts, answer)] == [
        b'{"predictions":[%b],"model":"m"}' % b",".join([row] * 2100)
    ] * 2


def test_lists_of_very_many_keys_beside_the_rows_are_cut_by_row() -> None:
    whys = b"{%b}" % b",".join(b'"k%d":%d' % (number, number) for number in range(12_000))
    body = b'{"predictions":[1,2,3,4],"why":[%b]}' % b",".join([whys] * 4)
    assert v1_answer(body) == [len(b'{"predictions":[1],"why":[%b]}' % whys)] * 4


@pytest.mark.parametrize(
    "before", [b'"x":{"instances":[1]},', b'"x":"instances",', b'"instances":[2],', b'"inst\\u0061nces":[3],']
)
def test_instances_of_very_many_keys_are_found_where_they_are_or_the_request_goes_alone(before: bytes) -> None:
    row = b"{%b}" % b",".join(b'"k%d":%d' % (number, number) for number in range(110_000))
    body = b'{%b"instances":[%b]}' % (before, row)
    codec = V1Codec()
    parts = parts_of(codec, V1, body, 2)
    if parts[0].group == parts[1].group:
        rest = before.strip(b",")
        assert codec.merge(parts).body == b'{"instances":[%b,%b],%b}' % (row, row, rest)
    assert codec.merge(parts[:1]).body == body


def test_what_a_very_long_name_is_told_of_it_is_short() -> None:
    with pytest.raises(BadRequest) as refused:
        v2(lambda: b'{"inputs":[{"name":"%b","shape":[2],"datatype":"FP32","data":[1]}]}' % (b"x" * 10_000)).parse()
    assert len(str(refused.value)) < 200
    with pytest.raises(UpstreamBroken) as broken:
        v2_answer(b'{"outputs":[%b"data":[1],"shape":[%b]}]}' % (BYTES, DIMENSIONS))
    assert len(str(broken.value)) < 200


def test_a_mark_that_only_lifted_arrays_have_is_nothing_when_a_client_writes_it() -> None:
    request = v2(lambda: b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":"\x7f0"}]}')
    assert request.parse() == (1, False)
