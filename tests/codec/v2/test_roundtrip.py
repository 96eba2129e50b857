"""V2: what a request gets merged is what it gets alone, field by field, numbers character by character."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from math import prod
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.codec.base import Answer, Part, RequestHead
from knative_sponge.codec.v2.codec import V2Codec
from tests.codec.servers import ITEM_BYTES, JSON_LENGTH, V2Server, read_v2
from tests.codec.tokens import NONFINITE, STRINGS, TOKENS, Number, nest, write

CODEC = V2Codec()
HEADERS = [(b"host", b"m.example"), (b"content-type", b"application/json"), (b"authorization", b"Bearer x")]


def head(headers: Sequence[tuple[bytes, bytes]] = HEADERS) -> RequestHead:
    return RequestHead("POST", b"/v2/models/m/infer", headers)


def serve_merged(parts: Sequence[Part], server: V2Server) -> list[Answer]:
    assert len({part.group for part in parts}) == 1, "equal requests must be mergeable"
    call = CODEC.merge(parts)
    assert (b"content-length", b"%d" % len(call.body)) in list(call.headers)
    return CODEC.split(parts, server(call))


def assert_same_as_alone(parts: Sequence[Part], server: V2Server) -> None:
    answers = serve_merged(parts, server)
    for part, answer in zip(parts, answers, strict=True):
        alone, alone_binary, alone_headers = read_v2(server(CODEC.merge([part])))
        if not server.seen.get("id"):
            del alone["id"]
        merged, merged_binary, merged_headers = read_v2(answer)
        assert merged == alone
        assert merged_binary == alone_binary
        assert merged_headers.keys() == alone_headers.keys()
        assert all(merged_headers[name] == alone_headers[name] for name in (b"content-type", b"x-model"))
        assert answer.status == 200


@st.composite
def templates(draw: st.DrawFn, datatypes: Sequence[str]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Names, datatypes and trailing shapes of the inputs that all requests of one batch share."""
    return [
        (name, draw(st.sampled_from(datatypes)), tuple(draw(st.lists(st.integers(1, 3), max_size=2))))
        for name in ("x", 'data"', "é")[: draw(st.integers(1, 3))]
    ]


def elements_of(datatype: str, count: int, rng: random.Random, tokens: Sequence[str]) -> list[Any]:
    if datatype == "BYTES":
        return rng.choices(STRINGS, k=count)
    if datatype == "BOOL":
        return rng.choices((True, False), k=count)
    return [Number(token) for token in rng.choices(tokens, k=count)]


@settings(max_examples=1400)
@given(
    templates(("FP32", "INT64", "FP16", "BOOL", "BYTES", "UINT8")),
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 2**32),
)
def test_a_json_request_is_answered_as_if_it_were_alone(
    inputs: list[tuple[str, str, tuple[int, ...]]],
    sizes: list[int],
    ways: tuple[bool, bool, bool, bool],
    seed: int,
) -> None:
    nested, nested_answer, spelled, ascii_only = ways
    rng = random.Random(seed)
    tokens = NONFINITE if rng.random() < 0.1 else TOKENS
    shared: dict[str, Any] = {}
    if rng.random() < 0.5:
        shared["parameters"] = rng.choice((None, {}, {"data": [Number("1.0")], "k": STRINGS[6]}))
    if rng.random() < 0.3:
        shared["outputs"] = [{"name": "sum"}, {"name": "label", "parameters": {"binary_data": rng.random() < 0.5}}]
    parts = []
    for index, rows in enumerate(sizes):
        request = {**shared, "inputs": []}
        if index % 3:
            request["id"] = rng.choice(STRINGS[1:]) if index % 3 == 1 else None
        for name, datatype, trailing in inputs:
            shape = (rows, *trailing)
            data: Any = elements_of(datatype, prod(shape), rng, tokens)
            data = nest(data, shape) if nested else data
            request["inputs"].append({"name": name, "shape": list(shape), "datatype": datatype, "data": data})
        body = write(request, rng if spelled else None, ascii_only=ascii_only).encode()
        part = CODEC.parse(head(), body)
        assert part.rows == rows
        parts.append(part)
    assert_same_as_alone(parts, V2Server(nested=nested_answer))


@settings(max_examples=1000)
@given(
    templates(("FP32", "INT64", "FP16", "BF16", "BOOL", "BYTES", "UINT8")),
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.sampled_from(({}, {"parameters": {"binary_data_output": True}}, {"outputs": [
        {"name": "label", "parameters": {"binary_data": True}}, {"name": "x_echo"}, {"name": "sum"}]})),
    st.integers(0, 2**32),
)  # fmt: skip
def test_a_binary_request_is_answered_as_if_it_were_alone(
    inputs: list[tuple[str, str, tuple[int, ...]]],
    sizes: list[int],
    in_json: list[bool],
    shared: dict[str, Any],
    seed: int,
) -> None:
    rng = random.Random(seed)
    parts = []
    for index, rows in enumerate(sizes):
        request: dict[str, Any] = {**shared, "inputs": []}
        if index % 2:
            request["id"] = f"request {index}"
        tail = []
        for (name, datatype, trailing), as_json in zip(inputs, in_json, strict=False):
            count = rows * prod(trailing)
            item: dict[str, Any] = {"name": name, "shape": [rows, *trailing], "datatype": datatype}
            if as_json:
                item["data"] = elements_of(datatype, count, rng, TOKENS)
            else:
                data = b"".join(
                    struct.pack("<I", size) + rng.randbytes(size)
                    if datatype == "BYTES"
                    else rng.randbytes(ITEM_BYTES[datatype])
                    for size in (rng.choice((0, 1, 7)) for _ in range(count))
                )
                item["parameters"] = {"binary_data_size": len(data), "content_type": "a,b"}
                tail.append(data)
            request["inputs"].append(item)
        json = write(request).encode()
        body = b"".join([json, *tail])
        lengths = [(JSON_LENGTH, b"%d" % len(json)), (b"content-length", b"%d" % len(body))]
        part = CODEC.parse(head([*HEADERS, *lengths]), body)
        assert part.rows == rows
        parts.append(part)
    assert_same_as_alone(parts, V2Server())
