"""V2 requests: which merge, which go alone, which are refused, and what a merged call looks like."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest

from knative_sponge.codec.base import Part, RequestHead
from knative_sponge.codec.v2.codec import V2Codec
from knative_sponge.errors import BadRequest, Reason

CODEC = V2Codec()
INFER = b"/v2/models/m/infer"
JSON = (b"content-type", b"application/json")
X = '{"name":"x","shape":[1,2],"datatype":"FP32","data":[1.10,2]}'


def head(*headers: tuple[bytes, bytes], target: bytes = INFER) -> RequestHead:
    return RequestHead("POST", target, headers or (JSON,))


def parse(body: str | bytes, *headers: tuple[bytes, bytes], target: bytes = INFER) -> Part:
    return CODEC.parse(head(*headers, target=target), body.encode() if isinstance(body, str) else body)


def request(*inputs: str, **members: Any) -> str:
    """A request of inputs given as JSON text."""
    others = "".join(f',"{key}":{json.dumps(value)}' for key, value in members.items())
    return '{"inputs":[' + ",".join(inputs or (X,)) + "]" + others + "}"


def tensor(shape: Sequence[int] | str, data: str, datatype: str = "FP32", name: str = "x", **members: Any) -> str:
    others = "".join(f',"{key}":{json.dumps(value)}' for key, value in members.items())
    shown = shape if isinstance(shape, str) else json.dumps(list(shape))
    return f'{{"name":"{name}","shape":{shown},"datatype":"{datatype}","data":{data}{others}}}'


def goes_alone(body: str | bytes, *headers: tuple[bytes, bytes]) -> bool:
    """Whether two requests of this body get different groups and go upstream byte for byte."""
    raw = body.encode() if isinstance(body, str) else body
    one, other = parse(raw, *headers), parse(raw, *headers)
    call = CODEC.merge([one])
    assert (call.method, call.target, call.headers, call.body) == ("POST", INFER, one.head.headers, raw)
    return one.group != other.group


# --- which requests ---


@pytest.mark.parametrize(
    "target", [INFER, b"/v2/models/m/versions/3/infer", b"/v2/models/a%2Fb/infer?trace=1", b"/v2/models/m/infer?"]
)
def test_inference_calls_are_wanted(target: bytes) -> None:
    assert CODEC.wants(RequestHead("POST", target, ()))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", INFER),
        ("POST", b"/v2/models/m/ready"),
        ("POST", b"/v2/models/m/generate"),
        ("POST", b"/v2/repository/models/m/load"),
        ("POST", b"/v1/models/m:predict"),
        ("POST", b"/v2/models//infer"),
        ("POST", b"/v2/models/m/x/infer"),
    ],
)
def test_other_calls_pass_through(method: str, target: bytes) -> None:
    assert not CODEC.wants(RequestHead(method, target, ()))


# --- merging ---


def test_a_single_request_is_sent_byte_for_byte_with_its_own_headers() -> None:
    headers = ((b"content-type", b"application/json"), (b"x-request-id", b"7"), (b"accept-encoding", b"gzip"))
    body = b' {"inputs" : [ ' + X.encode() + b'], "id":"\\u0061" }\n'
    call = CODEC.merge([parse(body, *headers)])
    assert (call.headers, call.body) == (headers, body)


def test_a_merged_call_joins_the_numbers_as_they_came() -> None:
    one = request(tensor([1, 3], "[1.10, 1e400,12345678901234567890]"), id="a")
    other = request(tensor([2, 3], "[-0.0,0.0,1E2 , 3,4,5e-7]"), id="b")
    call = CODEC.merge([parse(one), parse(other)])
    assert b"[1.10, 1e400,12345678901234567890,-0.0,0.0,1E2 , 3,4,5e-7]" in call.body
    merged = json.loads(call.body)
    assert merged["inputs"][0]["shape"] == [3, 3]
    assert "id" not in merged


def test_nested_data_stays_nested_and_does_not_merge_with_flat_data() -> None:
    nested = [parse(request(tensor([1, 2], "[[1,2.50]]"))), parse(request(tensor([2, 2], "[ [3,4],[5,6] ]")))]
    assert nested[0].group == nested[1].group
    assert json.loads(CODEC.merge(nested).body)["inputs"][0]["data"] == [[1, 2.5], [3, 4], [5, 6]]
    assert parse(request(tensor([1, 2], "[1,2]"))).group != nested[0].group


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(tensor([1, 2], "[ 1.10 ,\n2 ]")), id="white space in data"),
        pytest.param(request(tensor([7, 2], "[0" + ",1" * 13 + "]")), id="number of rows"),
        pytest.param(request(id="mine"), id="id"),
        pytest.param('{"inputs":[{"datatype":"FP32","data":[1,2],"name":"x","shape":[1,2]}]}', id="order of members"),
        pytest.param('\n{ "inputs"\t:[ ' + X.replace(":", " : ").replace(",", " ,") + " ] }", id="white space"),
        pytest.param(request(tensor("[ 1 , 2 ]", "[1,2]")), id="white space in shape"),
    ],
)
def test_what_does_not_change_the_answer_does_not_keep_requests_apart(body: str) -> None:
    assert parse(body).group == parse(request()).group


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(tensor([1, 2], "[1,2]", name="y")), id="input name"),
        pytest.param(request(tensor([1, 2], "[1,2]", "FP64")), id="datatype"),
        pytest.param(request(tensor([1, 3], "[1,2,3]")), id="trailing shape"),
        pytest.param(request(tensor([1, 2, 1], "[1,2]")), id="rank"),
        pytest.param(request(tensor([1, 2], "[1,2]", parameters={"content_type": "np"})), id="input parameters"),
        pytest.param(request(tensor([1, 2], "[1,2]", note=1)), id="unknown member of an input"),
        pytest.param(request(X, tensor([1, 2], "[1,2]", name="y")), id="number of inputs"),
        pytest.param(request(parameters={"binary_data_output": True}), id="parameters"),
        pytest.param(request(outputs=[{"name": "y"}]), id="requested outputs"),
        pytest.param(request(model_hint="a"), id="unknown member"),
        pytest.param(request(tensor([1, 2], "[NaN,2]")), id="a number that is not JSON"),
    ],
)
def test_what_may_change_the_answer_keeps_requests_apart(body: str) -> None:
    assert parse(body).group == parse(body).group
    assert parse(body).group != parse(request()).group


def test_requested_outputs_of_other_parameters_keep_requests_apart() -> None:
    one, other = ([{"name": "y", "parameters": {"classification": count}}] for count in (1, 2))
    assert parse(request(outputs=one)).group == parse(request(outputs=one)).group
    assert parse(request(outputs=one)).group != parse(request(outputs=other)).group


@pytest.mark.parametrize("target", [b"/v2/models/n/infer", b"/v2/models/m/versions/1/infer", INFER + b"?a=1"])
def test_another_model_version_or_query_keeps_requests_apart(target: bytes) -> None:
    assert parse(request(), target=target).group != parse(request()).group


# --- alone ---


@pytest.mark.parametrize("name", ["sequence_id", "sequence_start", "sequence_end", "priority", "timeout"])
def test_stateful_and_prioritised_requests_are_never_merged(name: str) -> None:
    body = request(tensor([3, 1], "[1,2,3]"), parameters={name: 0})
    assert goes_alone(body)
    assert parse(body).rows == 3


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(tensor([0, 2], "[]")), id="no rows"),
        pytest.param(request(tensor([2, 0], "[]")), id="no columns"),
        pytest.param(request(tensor([], "[1]")), id="a scalar"),
        pytest.param(request(tensor([-1, 2], "[1,2]")), id="a negative dimension"),
        pytest.param(request(tensor("[1.0,2]", "[1,2]")), id="a fractional dimension"),
        pytest.param(request(tensor("null", "[1,2]")), id="no shape at all"),
        pytest.param(request('{"name":"x","datatype":"FP32","data":[1,2]}'), id="shape missing"),
        pytest.param(request('{"shape":[1],"datatype":"FP32","data":[1]}'), id="name missing"),
        pytest.param(request('{"name":"x","shape":[1],"datatype":"FP32"}'), id="data missing"),
        pytest.param(request(tensor([1, 2], "null")), id="data null"),
        pytest.param(request(tensor([1, 2], '"AAA="')), id="data as one string"),
        pytest.param(request(X, tensor([2, 2], "[1,2,3,4]", name="y")), id="inputs of different rows"),
        pytest.param(request(tensor([2, 2], "[[1],[2,3,4]]")), id="ragged data"),
        pytest.param(request(tensor([1, 2], "[[[1,2]]]")), id="data nested deeper than the shape"),
        pytest.param(request(tensor([1, 2], "[1,null]")), id="null as a number"),
        pytest.param(request(tensor([1, 2], "[1,true]")), id="a boolean as a number"),
        pytest.param(request(tensor([1, 2], '[1,"2"]')), id="a string as a number"),
        pytest.param(request(tensor([1, 2], "[true,null]", "BOOL")), id="null as a boolean"),
        pytest.param(request(tensor([1, 2], '["a"]', "BYTES")), id="fewer strings than the shape says"),
        pytest.param(request(tensor([1, 2], "[1,2]", "BYTES")), id="numbers as strings"),
        pytest.param(request(tensor([1, 2], "[1,2]", "FP128")), id="an unknown datatype"),
        pytest.param(request(tensor([1], '[{"data":[1,2]}]')), id="an object as data"),
        pytest.param(request(tensor([2], "[{},1]")), id="an empty object as data"),
        pytest.param(request(tensor([1] * 40, "[1]")).replace('"data":[1]', '"data":[[1]]'), id="too many dimensions"),
        pytest.param(request(tensor([1, 2], "[1,2]", parameters={"shared_memory_region": "r"})), id="shared memory"),
        pytest.param(request(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]), id="its output"),
        pytest.param(request(tensor([1, 2], "[1,2]", parameters=[])), id="parameters that are no object"),
        pytest.param(request(id=7), id="an id that is no string"),
        pytest.param('{"inputs":[]}', id="no inputs"),
        pytest.param('{"inputs":{}}', id="inputs that are no list"),
        pytest.param('{"inputs":[1]}', id="inputs that are no objects"),
        pytest.param('{"instances":[1]}', id="another protocol"),
        pytest.param("[1,2]", id="an array"),
        pytest.param("1", id="a number"),
        pytest.param(request()[:-1] + ',"inputs":[' + X + "]}", id="a repeated member"),
        pytest.param(request(X[:-1] + ',"data":[3,4]}'), id="repeated data"),
        pytest.param(request(X[:-1] + ',"d\\u0061ta":[3,4]}'), id="repeated data in other spelling"),
        pytest.param('{"inputs":[' + X + '],"id":"\\ud800"}', id="a lone surrogate"),
        pytest.param('{"inputs":[' + X + '],"x":' + "[" * 5000 + "]" * 5000 + "}", id="very deep nesting"),
        pytest.param("\ufeff" + request(), id="a byte order mark"),
        pytest.param(request().encode("utf-16"), id="UTF-16"),
        pytest.param(request(tensor([1], '["\xe9"]', "BYTES")).encode("latin-1"), id="Latin-1"),
        pytest.param(('{"inputs":[' + X + '],"\xe9":1}').encode("latin-1"), id="a key in Latin-1"),
    ],
)
def test_what_cannot_be_merged_safely_is_sent_alone(body: str | bytes) -> None:
    assert goes_alone(body)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(gzip.compress(request().encode()), (JSON, (b"content-encoding", b"gzip")), id="gzip"),
        pytest.param(b"\x0a\x01m", ((b"content-type", b"application/x-protobuf"),), id="protobuf"),
        pytest.param(b"--x\r\n", ((b"content-type", b"multipart/form-data; boundary=x"),), id="a form"),
    ],
)
def test_bodies_that_are_not_plain_json_are_sent_alone(body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    assert goes_alone(body, *headers)


# --- refused ---


@pytest.mark.parametrize(
    "body",
    ["", "{", "nonsense", request()[:-1], request(tensor([1, 2], "[1,,2]")), request(tensor([1, 2], "[1,2,]")),
     request(tensor([1, 1], "[01]")), request(tensor([1, 1], "[1NaN]")), request(tensor([1, 1], "[-NaN]")),
     request() + "x", "{'inputs':[]}", '{"inputs":[' + X + '],"a":"\x01"}', request(tensor([1, 2], "[1 2]")),
     request(tensor([1, 1], "[[1,]]")), '{"x":NaN,}'],
)  # fmt: skip
def test_a_body_that_is_not_json_is_refused(body: str) -> None:
    for headers in ((JSON,), ((b"x-y", b"z"),)):
        with pytest.raises(BadRequest, match="the body is not JSON") as refused:
            parse(body, *headers)
        assert (refused.value.status, refused.value.reason) == (400, Reason.BAD_REQUEST)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (tensor([2, 3], "[1,2,3,4,5]"), "input 'x': shape [2, 3] of FP32: needs 6 elements, its data has 5"),
        (tensor([1, 2], "[1,2,3]"), "needs 2 elements, its data has 3"),
        (tensor([1, 2], "[]"), "needs 2 elements, its data has 0"),
        (tensor([0, 2], "[1]"), "needs 0 elements, its data has 1"),
        (tensor([], "[1,2]"), "needs 1 elements, its data has 2"),
        (tensor([2, 2], "[[1,2],[3]]"), "needs 4 elements, its data has 3"),
        (tensor([1, 2], "[true]", "BOOL"), "needs 2 elements, its data has 1"),
        (tensor([1, 10**17], "[1]"), "needs 100000000000000000 elements, its data has 1"),
    ],
)
def test_a_shape_that_contradicts_its_data_is_refused_with_both_named(item: str, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(request(item))
    assert said in str(refused.value)


# --- details ---


def test_arrays_called_data_outside_tensors_stay_where_they_are() -> None:
    body = '{"parameters":{"data":[1.10, 2],"k":"\\"data\\":[3]"},"data":[4],"inputs":[' + X + "]}"
    assert parse(body).group != parse(body.replace("1.10", "1.11")).group
    merged = json.loads(CODEC.merge([parse(body), parse(body)]).body)
    assert merged["parameters"] == {"data": [1.1, 2], "k": '"data":[3]'}
    assert merged["data"] == [4]
    assert merged["inputs"][0]["data"] == [1.1, 2, 1.1, 2]


def test_marks_in_the_text_do_not_stand_for_tensors() -> None:
    body = request('{"name":"\x7f0","shape":[1],"datatype":"BYTES","data":["\x7f0"]}', X)
    merged = json.loads(CODEC.merge([parse(body), parse(body)]).body)
    assert [item["data"] for item in merged["inputs"]] == [["\x7f0", "\x7f0"], [1.1, 2, 1.1, 2]]
    assert merged["inputs"][0]["name"] == "\x7f0"


def test_an_infinity_in_nested_data_arrives_as_it_came() -> None:
    body = request(tensor([1, 3], "[[NaN,-Infinity, 1e400]]"))
    assert b"[[NaN,-Infinity, 1e400],[NaN,-Infinity, 1e400]]" in CODEC.merge([parse(body), parse(body)]).body


def test_a_body_of_openings_without_end_is_read_in_linear_time() -> None:
    assert goes_alone(b'{"data":[' * 1_000_000 + b"]")
