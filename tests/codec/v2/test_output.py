"""V2 answers: each client gets its own rows, id and nothing of another's; what cannot be cut is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from knative_sponge.codec.base import Answer, Part, RequestHead
from knative_sponge.codec.v2.codec import V2Codec
from knative_sponge.errors import Reason, UpstreamBroken, UpstreamMismatch

CODEC = V2Codec()
HEAD = RequestHead("POST", b"/v2/models/m/infer", [(b"content-type", b"application/json")])


def part(rows: int, id_json: str | None = None) -> Part:
    data = ",".join("1" * rows)
    own = "" if id_json is None else f',"id":{id_json}'
    body = f'{{"inputs":[{{"name":"x","shape":[{rows}],"datatype":"FP32","data":[{data}]}}]{own}}}'
    return CODEC.parse(HEAD, body.encode())


def split(outputs: str, *rows: int) -> list[Any]:
    answers = CODEC.split([part(count) for count in rows], Answer(200, [], f'{{"outputs":[{outputs}]}}'.encode()))
    return [json.loads(answer.body)["outputs"] for answer in answers]


def output(shape: object, data: str, datatype: str = "FP32") -> str:
    return f'{{"name":"y","datatype":"{datatype}","shape":{json.dumps(shape)},"data":{data}}}'


def test_rows_return_to_their_owners_whether_flat_or_nested() -> None:
    for data in ("[1,2,3,4,5,6]", "[[1,2],[3,4],[5,6]]", "[ [1 ,2],\n[3,4] , [5,6]]", "[1\n,2,3 ,4,5,6 ]"):
        first, second = split(output([3, 2], data), 1, 2)
        assert first[0]["shape"] == [1, 2]
        assert second[0]["shape"] == [2, 2]
        assert json.dumps(first[0]["data"]).replace("[", "").replace("]", "") == "1, 2"
        assert json.dumps(second[0]["data"]).replace("[", "").replace("]", "") == "3, 4, 5, 6"


def test_answered_numbers_keep_every_character() -> None:
    tokens = "1.10,1e400,-0.0,12345678901234567890,NaN,-Infinity"
    raw = f'{{"outputs":[{output([2, 3], f"[{tokens}]")}],"parameters":{{"p":1.10}}}}'.encode()
    first, second = CODEC.split([part(1), part(1)], Answer(200, [], raw))
    assert b'"data":[1.10,1e400,-0.0]' in first.body
    assert b'"data":[12345678901234567890,NaN,-Infinity]' in second.body
    assert all(b'{"p":1.10}' in answer.body for answer in (first, second))


def test_words_like_nan_in_strings_and_keys_are_left_alone() -> None:
    raw = f'{{"NaN":"Infinity","outputs":[{output([2, 1], "[[NaN],[-Infinity]]")}],"note":"\x7f\x7f1NaN"}}'.encode()
    first, second = CODEC.split([part(1), part(1)], Answer(200, [], raw))
    assert b'"data":[[NaN]]' in first.body
    assert b'"data":[[-Infinity]]' in second.body
    assert all(b'"NaN":"Infinity","note":"\x7f\x7f1NaN"' in answer.body for answer in (first, second))


def test_strings_with_separators_inside_are_cut_between_not_within() -> None:
    first, second = split(output([2, 2], json.dumps(['a,b"', "],[", "\\", "é"]), "BYTES"), 1, 1)
    assert (first[0]["data"], second[0]["data"]) == (['a,b"', "],["], ["\\", "é"])


@pytest.mark.parametrize("size", [1, 15, 16, 17, 100, 1000])
def test_long_and_short_numbers_are_cut_at_the_right_comma(size: int) -> None:
    """Rows whose numbers differ much in length, so that no guess of where a row ends is right."""
    rows = [["1" * (1 + (place * 7 + row * 40) % 90) for place in range(size)] for row in range(6)]
    data = "[" + ",".join(",".join(row) for row in rows) + "]"
    raw = f'{{"outputs":[{output([6, size], data)}]}}'.encode()
    answers = CODEC.split([part(1), part(3), part(2)], Answer(200, [], raw))
    for answer, own in zip(answers, (rows[:1], rows[1:4], rows[4:]), strict=True):
        assert b"[" + ",".join(",".join(row) for row in own).encode() + b"]" in answer.body


def test_an_id_returns_to_its_request_and_a_request_without_one_gets_none() -> None:
    parts = [part(1, '"a"'), part(1), part(1, "null"), part(1, '"\\u00e9\\""'), part(1, '""')]
    raw = f'{{"model_name":"m","id":"server","model_version":"1","outputs":[{output([5], "[1,2,3,4,5]")}]}}'
    answers = [json.loads(answer.body) for answer in CODEC.split(parts, Answer(200, [], raw.encode()))]
    assert [answer.get("id", "none") for answer in answers] == ["a", "none", "none", 'é"', ""]
    assert all((answer["model_name"], answer["model_version"]) == ("m", "1") for answer in answers)


def test_a_merged_call_carries_no_members_id() -> None:
    assert b'"id"' not in CODEC.merge([part(1, '"a"'), part(1, '"a"')]).body


def test_a_single_answer_is_returned_untouched() -> None:
    answer = Answer(200, [(b"set-cookie", b"a"), (b"transfer-encoding", b"chunked")], b"anything")
    assert CODEC.split([part(2)], answer) == [answer]


def test_shares_carry_the_answers_headers_and_lengths_of_their_own() -> None:
    headers = [
        (b"content-type", b"application/json"), (b"x-model", b"1"), (b"x-model", b"2"), (b"content-length", b"999"),
        (b"transfer-encoding", b"chunked"), (b"connection", b"close"), (b"set-cookie", b"session=1"), (b"etag", b'"e"'),
        (b"content-digest", b"d"), (b"server", b"s"),
    ]  # fmt: skip
    raw = f'{{"outputs":[{output([3], "[1,22,333]")}]}}'.encode()
    for answer in CODEC.split([part(1), part(2)], Answer(201, headers, raw)):
        kept = [(b"content-type", b"application/json"), (b"x-model", b"1"), (b"x-model", b"2"), (b"server", b"s")]
        assert list(answer.headers) == [*kept, (b"content-length", b"%d" % len(answer.body))]
        assert answer.status == 201


def test_bytes_outputs_are_cut_by_their_length_prefixes() -> None:
    elements = [struct.pack("<I", len(text)) + text for text in (b"", b"a", b"\x01\x00\x00\x00", b"xyz")]
    data = b"".join(elements)
    described = f'{{"name":"y","datatype":"BYTES","shape":[2,2],"parameters":{{"binary_data_size":{len(data)}}}}}'
    raw = f'{{"outputs":[{described}]}}'.encode()
    answer = Answer(200, [(b"inference-header-content-length", b"%d" % len(raw))], raw + data)
    shares = CODEC.split([part(1), part(1)], answer)
    for share, own in zip(shares, (b"".join(elements[:2]), b"".join(elements[2:])), strict=True):
        length = int(dict(share.headers)[b"inference-header-content-length"])
        assert share.body[length:] == own
        told = json.loads(share.body[:length])["outputs"][0]
        assert (told["shape"], told["parameters"]) == ([1, 2], {"binary_data_size": len(own)})


@pytest.mark.parametrize(
    "described",
    [
        pytest.param(output([2, 2], "[1,2,3,4]"), id="fewer rows"),
        pytest.param(output([4, 2], "[1,2,3,4,5,6,7,8]"), id="more rows"),
        pytest.param(output([2, 2], "[1,2,3,4,5,6]"), id="fewer rows in the shape than in the data"),
        pytest.param(output([], "[1]"), id="a scalar"),
        pytest.param(output([3, 2], "[1,2,3,4,5]"), id="fewer numbers"),
        pytest.param(output([3, 2], "[1,2,3,4,5,6,7]"), id="more numbers"),
        pytest.param(output([3, 20], "[1,2,3]"), id="far fewer numbers"),
        pytest.param(output([3, 10**15], "[1,2,3]"), id="a shape beyond all data"),
        pytest.param(output([3, 0], "[1]"), id="numbers where there are none"),
        pytest.param(output([3, 2], "[]"), id="no numbers"),
        pytest.param(output([3, 2], "[[1,2],[3,4]]"), id="fewer nested rows"),
        pytest.param(output([3, 2], '["a","b"]', "BYTES"), id="fewer strings"),
        pytest.param(output([3], "[1,2,3]") + "," + output([2], "[1,2]"), id="one output of two"),
    ],
)
def test_wrong_row_counts_are_a_mismatch(described: str) -> None:
    with pytest.raises(UpstreamMismatch) as refused:
        split(described, 1, 2)
    assert refused.value.reason is Reason.UPSTREAM_MISMATCH


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("FP32", b"12345"), ("BYTES", b"\x01\0\0\0a"), ("BYTES", b"\x01\0\0\0a" * 3), ("BYTES", b"\x09\0\0\0a\0\0\0\0"),
     ("BYTES", b"\x01\0\0\0a\0\0\0")],
)  # fmt: skip
def test_binary_data_that_is_not_the_rows_is_a_mismatch(datatype: str, data: bytes) -> None:
    raw = f'{{"outputs":[{{"datatype":"{datatype}","shape":[2],"parameters":{{"binary_data_size":{len(data)}}}}}]}}'
    answer = Answer(200, [(b"inference-header-content-length", b"%d" % len(raw))], raw.encode() + data)
    with pytest.raises(UpstreamMismatch):
        CODEC.split([part(1), part(1)], answer)


def binary_output(size: object) -> bytes:
    described = {"name": "y", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": size}}
    return json.dumps({"outputs": [described]}).encode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", ()),
        (b"not json", ()),
        (b'{"error":"no"}', ()),
        (b'{"outputs":{}}', ()),
        (b'{"outputs":[1]}', ()),
        (b'{"outputs":[{"name":"y"}]}', ()),
        (b'{"outputs":[{"shape":[2]}]}', ()),
        (b'{"outputs":[{"shape":[2],"data":null}]}', ()),
        (b'{"outputs":[{"shape":["2"],"data":[1,2]}]}', ()),
        (b'{"outputs":[],"outputs":[]}', ()),
        (b"[" * 5000, ()),
        (b'{"outputs":[]}', ((b"content-encoding", b"gzip"),)),
        (b'{"outputs":[]}', ((b"inference-header-content-length", b"15"),)),
        (b'{"outputs":[]}', ((b"inference-header-content-length", b"x"),)),
        (b'{"outputs":[]}z', ((b"inference-header-content-length", b"14"),)),
        (binary_output(2), ()),
        (binary_output(-1), ()),
        (binary_output("2"), ()),
        (binary_output(3) + b"ab", ((b"inference-header-content-length", b"%d" % len(binary_output(3))),)),
        (binary_output(10**30), ()),
    ],
)
def test_answers_that_are_not_of_the_protocol_are_broken(body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(UpstreamBroken):
        CODEC.split([part(1), part(1)], Answer(200, headers, body))


def test_an_answer_without_outputs_is_shared_as_it_is() -> None:
    answers = CODEC.split([part(1, '"a"'), part(1)], Answer(200, [], b'{"outputs":[],"model_name":"m"}'))
    assert [json.loads(answer.body) for answer in answers] == [
        {"outputs": [], "id": "a", "model_name": "m"},
        {"outputs": [], "model_name": "m"},
    ]
