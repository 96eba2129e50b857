"""V2 binary tensors in requests: joined as bytes, checked against their shapes, framed by true lengths."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from knative_sponge.codec.base import Part, RequestHead
from knative_sponge.codec.v2.codec import V2Codec
from knative_sponge.errors import BadRequest

CODEC = V2Codec()
LENGTH = b"inference-header-content-length"


def parse(described: dict[str, Any], data: bytes, length: bytes | None = None) -> Part:
    text = json.dumps(described).encode()
    headers = [
        (b"content-type", b"application/octet-stream"),
        (LENGTH, b"%d" % len(text) if length is None else length),
        (b"content-length", b"%d" % len(text + data)),
    ]
    return CODEC.parse(RequestHead("POST", b"/v2/models/m/infer", headers), text + data)


def described(shape: list[int], size: object, datatype: str = "FP32", **parameters: object) -> dict[str, Any]:
    item = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size, **parameters}}
    return {"inputs": [item]}


def strings(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def test_a_merged_call_frames_the_joined_tensors() -> None:
    two = {"inputs": [described([1, 2], 8)["inputs"][0], {**described([1], 1, "BOOL")["inputs"][0], "name": "y"}]}
    call = CODEC.merge([parse(two, b"aaaabbbb\x01"), parse(two, b"ccccdddd\x00")])
    headers = dict(call.headers)
    length = int(headers[LENGTH])
    assert int(headers[b"content-length"]) == len(call.body)
    assert headers[b"content-type"] == b"application/octet-stream"
    assert call.body[length:] == b"aaaabbbbccccdddd\x01\x00"
    merged = json.loads(call.body[:length])["inputs"]
    assert [(item["shape"], item["parameters"]) for item in merged] == [
        ([2, 2], {"binary_data_size": 16}),
        ([2], {"binary_data_size": 2}),
    ]


def test_strings_of_different_lengths_merge() -> None:
    parts = [
        parse(described([n, 1], len(data), "BYTES"), data)
        for n, data in ((1, strings(b"abc")), (2, strings(b"", b"\0")))
    ]
    assert parts[0].group == parts[1].group
    call = CODEC.merge(parts)
    assert call.body.endswith(strings(b"abc", b"", b"\0"))
    assert b'"shape":[3,1]' in call.body


def test_binary_and_json_data_do_not_merge() -> None:
    in_json = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    assert parse(in_json, b"").group == parse(in_json, b"").group
    assert parse(in_json, b"").group != parse(described([1, 2], 8), bytes(8)).group


def test_framed_and_plain_json_do_not_merge() -> None:
    in_json = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    framed = parse(in_json, b"")
    headers = [pair for pair in framed.head.headers if pair[0] != LENGTH]
    assert CODEC.parse(RequestHead("POST", framed.head.target, headers), framed.body).group != framed.group


def test_other_parameters_of_a_binary_tensor_keep_requests_apart() -> None:
    plain, noted = described([1, 2], 8), described([1, 2], 8, content_type="np")
    assert parse(noted, bytes(8)).group == parse(noted, bytes(8)).group
    assert parse(noted, bytes(8)).group != parse(plain, bytes(8)).group
    assert b'"content_type":"np"' in CODEC.merge([parse(noted, bytes(8))] * 2).body


@pytest.mark.parametrize(
    ("request_json", "data", "length"),
    [
        pytest.param(described([1, 2], 8), bytes(9), None, id="bytes of no tensor"),
        pytest.param(described([1, 2], "8"), bytes(8), None, id="a size that is no number"),
        pytest.param(described([1, 2], 8, "FP8"), bytes(8), None, id="an unknown datatype"),
        pytest.param(described([0, 2], 0), b"", None, id="no rows"),
        pytest.param(described([1, 2], 8, shared_memory_region="r"), bytes(8), None, id="shared memory"),
        pytest.param({**described([1], 4), "parameters": {"sequence_id": 3}}, bytes(4), None, id="a sequence"),
        pytest.param(described([1, 2], 8), bytes(8), b"0", id="a body that is one raw tensor"),
    ],
)
def test_what_cannot_be_merged_safely_is_sent_alone(
    request_json: dict[str, Any], data: bytes, length: bytes | None
) -> None:
    one, other = parse(request_json, data, length), parse(request_json, data, length)
    assert one.group != other.group
    call = CODEC.merge([one])
    assert (call.headers, call.body) == (one.head.headers, one.body)


def test_a_binary_size_without_framing_is_sent_alone() -> None:
    body = json.dumps(described([1, 2], 8)).encode()
    head = RequestHead("POST", b"/v2/models/m/infer", ())
    assert CODEC.parse(head, body).group != CODEC.parse(head, body).group


@pytest.mark.parametrize(
    ("request_json", "data", "said"),
    [
        (described([1, 2], 9), bytes(8), "binary_data_size is 9, but only 8 bytes follow"),
        (described([1, 2], 4), bytes(4), "input 'x': shape [1, 2] of FP32: 4 bytes instead of 8"),
        (described([1, 2], 8, "BYTES"), strings(b"abcd"), "8 bytes, which end before 2 elements"),
        (described([1, 3], 8, "BYTES"), strings(b"abcd"), "8 bytes, too few for 3 elements"),
        (described([1], 9, "BYTES"), strings(b"abcd") + b"x", "9 bytes, but 1 elements take 8"),
        (described([1], 6, "BYTES"), strings(b"abcd")[:6], "6 bytes, but 1 elements take 8"),
    ],
)
def test_a_size_that_contradicts_the_shape_is_refused(request_json: dict[str, Any], data: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(request_json, data)
    assert said in str(refused.value)


@pytest.mark.parametrize("length", [b"-1", b"x", b"", b"100000", b"9" * 5000, b"7,7"])
def test_a_json_length_that_cannot_be_is_refused(length: bytes) -> None:
    with pytest.raises(BadRequest, match="inference-header-content-length is"):
        parse(described([1, 2], 8), bytes(8), length)


def test_a_json_length_that_cuts_the_json_is_refused() -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        parse(described([1, 2], 8), bytes(8), b"12")
