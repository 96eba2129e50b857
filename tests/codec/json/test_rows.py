"""V1 and bare arrays: rows merge only with rows of their structure and return to their owners."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.codec.base import Answer, Codec, Part, RequestHead
from knative_sponge.codec.json_array import JsonArrayCodec
from knative_sponge.codec.v1 import V1Codec
from knative_sponge.errors import BadRequest, UpstreamBroken, UpstreamMismatch
from tests.codec.servers import array_server, v1_server
from tests.codec.tokens import NONFINITE, STRINGS, TOKENS, Number, read, write

V1, ARRAY = V1Codec(), JsonArrayCodec()
PREDICT = b"/v1/models/m:predict"
JSON = [(b"content-type", b"application/json")]


def v1(body: str | bytes, *headers: tuple[bytes, bytes]) -> Part:
    return V1.parse(RequestHead("POST", PREDICT, [*JSON, *headers]), body.encode() if isinstance(body, str) else body)


def array(body: str | bytes, *headers: tuple[bytes, bytes]) -> Part:
    return ARRAY.parse(RequestHead("POST", b"/", [*JSON, *headers]), body.encode() if isinstance(body, str) else body)


def row_like(kind: int, rng: random.Random, tokens: tuple[str, ...]) -> Any:
    """A row of one of six structures, filled at random."""

    def number() -> Number:
        return Number(rng.choice(tokens))

    return (
        number,
        lambda: [number(), number()],
        lambda: [[number()], [number(), [number(), []]]],
        lambda: rng.choice(STRINGS),
        lambda: {"a,]": [number()], '"': {"b64": rng.choice(STRINGS), "ok": rng.random() < 0.5}, "none": None},
        list,
    )[kind]()


rows_of_requests = st.lists(st.integers(1, 4), min_size=2, max_size=5)


@settings(max_examples=700)
@given(rows_of_requests, st.integers(0, 5), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_a_v1_request_is_answered_as_if_it_were_alone(
    sizes: list[int], kind: int, spelled: bool, signed: bool, seed: int
) -> None:
    rng = random.Random(seed)
    tokens = NONFINITE if rng.random() < 0.1 else TOKENS
    shared = {"signature_name": rng.choice(STRINGS)} if signed else {}
    parts = []
    for size in sizes:
        request = {**shared, "instances": [row_like(kind, rng, tokens) for _ in range(size)]}
        part = v1(write(request, rng if spelled else None))
        assert part.rows == size
        parts.append(part)
    assert len({part.group for part in parts}) == 1
    for part, share in zip(parts, V1.split(parts, v1_server(V1.merge(parts))), strict=True):
        assert read(share.body) == read(v1_server(V1.merge([part])).body)
        assert dict(share.headers) == {
            b"content-type": b"application/json", b"x-model": b"m", b"content-length": b"%d" % len(share.body)
        }  # fmt: skip


@settings(max_examples=400)
@given(rows_of_requests, st.integers(0, 5), st.booleans(), st.integers(0, 2**32))
def test_a_bare_array_is_answered_as_if_it_were_alone(sizes: list[int], kind: int, spelled: bool, seed: int) -> None:
    rng = random.Random(seed)
    tokens = NONFINITE if rng.random() < 0.1 else TOKENS
    parts = []
    for size in sizes:
        rows = [row_like(kind, rng, tokens) for _ in range(size)]
        parts.append(array(write(rows, rng if spelled else None)))
        assert parts[-1].rows == size
    assert len({part.group for part in parts}) == 1
    for part, share in zip(parts, ARRAY.split(parts, array_server(ARRAY.merge(parts))), strict=True):
        assert read(share.body) == read(array_server(ARRAY.merge([part])).body)


def test_joined_rows_keep_every_character() -> None:
    call = V1.merge([v1('{"instances":[1.10, 1e400]}'), v1('{"instances":[ -0.0,12345678901234567890 ]}')])
    assert call.body == b'{"instances":[1.10, 1e400, -0.0,12345678901234567890 ]}'
    assert ARRAY.merge([array(" [ [1.10] ]\n"), array("[[2E2]]")]).body == b"[ [1.10] ,[2E2]]"


@pytest.mark.parametrize(
    ("rows", "other"),
    [
        ("[[1,2]]", "[[1,2,3]]"),
        ("[[1]]", "[[]]"),
        ("[1]", "[[1]]"),
        ("[1]", '["1"]'),
        ("[1]", "[true]"),
        ("[1]", "[null]"),
        ("[1]", "[NaN]"),
        ('[{"a":1}]', '[{"b":1}]'),
        ('[{"a":1}]', '[{"a":"1"}]'),
        ('[{"a":1}]', '[{"a":1,"b":2}]'),
        ("[[[1,2],[3]]]", "[[[1],[2,3]]]"),
    ],
)
def test_rows_of_different_structure_do_not_merge(rows: str, other: str) -> None:
    assert array(rows).group == array(rows).group
    assert array(rows).group != array(other).group
    assert v1(f'{{"instances":{rows}}}').group == v1(f'{{"instances":{rows}}}').group
    assert v1(f'{{"instances":{rows}}}').group != v1(f'{{"instances":{other}}}').group


def test_true_and_false_are_of_one_kind() -> None:
    assert array("[[true,1.5]]").group == array("[[false,2e9]]").group


@pytest.mark.parametrize("others", ['"signature_name":"a"', '"signature_name":"b"', '"x":1', '"x":[1]'])
def test_every_other_member_keeps_v1_requests_apart(others: str) -> None:
    body = '{"instances":[1],' + others + "}"
    assert v1(body).group == v1('{ "instances" : [2, 3] ,' + others.replace(":", " : ") + "}").group
    assert v1(body).group != v1('{"instances":[1]}').group
    assert others.encode() in V1.merge([v1(body), v1(body)]).body


@pytest.mark.parametrize(
    "body",
    ['{"inputs":[[1]]}', '{"instances":[1],"inputs":[1]}', '{"instances":[]}', '{"instances":{}}', "{}", "[1]", "1",
     '{"instances":[[1],[2,3]]}', '{"instances":[1],"instances":[2]}', '{"instances":["\\ud800"]}',
     '{"instances":' + "[" * 5000 + "]" * 5000 + "}", b'{"instances":["\xff"]}', b'\xef\xbb\xbf{"instances":[1]}'],
)  # fmt: skip
def test_v1_requests_that_cannot_be_merged_safely_are_sent_alone(body: str | bytes) -> None:
    one, other = v1(body), v1(body)
    assert one.group != other.group
    assert V1.merge([one]).body == (body.encode() if isinstance(body, str) else body)


@pytest.mark.parametrize("body", ['{"rows":[1]}', "[]", "1", '"a"', "[1,[2]]", '["\\ud800"]', b'["\xff"]'])
def test_bodies_that_are_no_rows_are_sent_alone(body: str | bytes) -> None:
    one, other = array(body), array(body)
    assert one.group != other.group
    assert ARRAY.merge([one]).body == (body.encode() if isinstance(body, str) else body)


@pytest.mark.parametrize("parse", [v1, array])
def test_compressed_and_foreign_bodies_are_sent_alone(parse: Any) -> None:
    zipped = gzip.compress(b"[1]")
    assert parse(zipped, (b"content-encoding", b"gzip")).group != parse(zipped, (b"content-encoding", b"gzip")).group
    for codec, target in ((V1, PREDICT), (ARRAY, b"/")):
        head = RequestHead("POST", target, [(b"content-type", b"image/png")])
        assert codec.parse(head, b"\x89PNG").group != codec.parse(head, b"\x89PNG").group


@pytest.mark.parametrize("body", ["", "{", "[1,]", '{"instances":[1,,2]}', "[1] 2", '["\x01"]', b"\x89PNG"])
def test_a_body_that_is_not_json_is_refused(body: str | bytes) -> None:
    for parse in (v1, array):
        with pytest.raises(BadRequest, match="the body is not JSON"):
            parse(body)


def answered(codec: Codec, parts: list[Part], body: str) -> list[Any]:
    return [json.loads(share.body) for share in codec.split(parts, Answer(200, [], body.encode()))]


def test_other_members_of_an_answer_go_to_everyone() -> None:
    parts = [v1('{"instances":[1]}'), v1('{"instances":[2,3]}')]
    body = '{"model":"m","predictions":[{"a":[1]},"],",null],"took":1.5}'
    assert answered(V1, parts, body) == [
        {"predictions": [{"a": [1]}], "model": "m", "took": 1.5},
        {"predictions": ["],", None], "model": "m", "took": 1.5},
    ]


@pytest.mark.parametrize("rows", ["[1,2]", "[1,2,3,4]", "[]", "{}", "null", '"a"', "[[1,2,3]]"])
def test_wrong_row_counts_are_a_mismatch(rows: str) -> None:
    with pytest.raises(UpstreamMismatch):
        answered(V1, [v1('{"instances":[1]}'), v1('{"instances":[2,3]}')], '{"predictions":' + rows + "}")
    with pytest.raises(UpstreamMismatch):
        answered(ARRAY, [array("[1]"), array("[2,3]")], rows)


@pytest.mark.parametrize(
    "body", ["", "x", '{"error":"no"}', "[1,2,3]", '{"predictions":[1,2,3],"predictions":[1]}', "["]
)
def test_answers_that_are_not_v1_are_broken(body: str) -> None:
    with pytest.raises(UpstreamBroken):
        answered(V1, [v1('{"instances":[1]}'), v1('{"instances":[2,3]}')], body)


def test_answers_that_are_not_json_are_broken() -> None:
    for body, headers in ((b"", ()), (b"[1,2,3", ()), (b"[1,2,3]", ((b"content-encoding", b"br"),))):
        with pytest.raises(UpstreamBroken):
            ARRAY.split([array("[1]"), array("[2,3]")], Answer(200, headers, body))


def test_single_answers_are_returned_untouched() -> None:
    answer = Answer(200, [(b"content-length", b"3")], b"???")
    assert V1.split([v1('{"instances":[1]}')], answer) == ARRAY.split([array("[1]")], answer) == [answer]
