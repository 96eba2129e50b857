"""Model servers as functions, written from the protocols with the standard library: the oracle that codecs are held to.

Every output row depends on its input rows alone, so a request must get the same answer merged as alone.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from math import prod
from typing import Any

from knative_sponge.codec.base import Answer, Call
from tests.codec.tokens import STRINGS, Number, nest, read, write

ITEM_BYTES = {"BOOL": 1, "UINT8": 1, "INT16": 2, "FP16": 2, "BF16": 2, "INT32": 4, "FP32": 4, "INT64": 8, "FP64": 8}
JSON_LENGTH = b"inference-header-content-length"


def leaves(value: Any) -> list[Any]:
    """The elements of arrays in arrays, in order."""
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


def take_elements(data: bytes, datatype: str) -> list[bytes]:
    """Binary data as its elements, BYTES with their length prefix."""
    elements = []
    at = 0
    while at < len(data):
        size = 4 + struct.unpack("<I", data[at : at + 4])[0] if datatype == "BYTES" else ITEM_BYTES[datatype]
        elements.append(data[at : at + size])
        at += size
    assert at == len(data)
    return elements


def _row_sum(rows: Sequence[Any]) -> int:
    return zlib.crc32(repr(rows).encode())


class V2Server:
    """Echoes its inputs and adds, for each row: a checksum, two labels, and a tensor without columns.

    nested: whether JSON outputs are arrays in arrays. Remembers the last request it got as `seen`.
    """

    def __init__(self, *, nested: bool = False) -> None:
        self.nested = nested
        self.seen: dict[str, Any] = {}

    def __call__(self, call: Call) -> Answer:
        headers = dict(call.headers)
        assert JSON_LENGTH not in headers or headers.get(b"content-length", b"") == b"%d" % len(call.body)
        length = int(headers.get(JSON_LENGTH, b"%d" % len(call.body)))
        request = self.seen = read(call.body[:length])
        at = length
        tensors: list[tuple[str, str, list[int], list[Any]]] = []
        for item in request["inputs"]:
            shape = [int(size) for size in item["shape"]]
            size = (item.get("parameters") or {}).get("binary_data_size")
            if size is None:
                elements = leaves(item["data"])
            else:
                elements = take_elements(call.body[at : at + int(size)], item["datatype"])
                at += int(size)
            assert len(elements) == prod(shape), "the shape contradicts the data"
            tensors.append((item["name"], item["datatype"], shape, elements))
        assert at == len(call.body)
        rows = tensors[0][2][0]
        assert all(shape[0] == rows for _, _, shape, _ in tensors)
        by_row = [[nest(elements, shape)[row] for _, _, shape, elements in tensors] for row in range(rows)]
        sums = [_row_sum(row) for row in by_row]
        labels = [STRINGS[(value + place) % len(STRINGS)] for value in sums for place in (0, 5)]
        outputs = [
            *((f"{name}_echo", kind, shape, elements) for name, kind, shape, elements in tensors),
            ("sum", "INT64", [rows], [Number(value) for value in sums]),
            ("label", "BYTES", [rows, 2], labels),
            ("none", "FP32", [rows, 0], []),
        ]
        return self._answer(request, outputs)

    def _answer(self, request: dict[str, Any], outputs: list[tuple[str, str, list[int], list[Any]]]) -> Answer:
        wanted = {item["name"]: item.get("parameters") or {} for item in request.get("outputs") or []}
        all_binary = (request.get("parameters") or {}).get("binary_data_output", False)
        described, binary = [], []
        for name, kind, shape, elements in outputs:
            if wanted and name not in wanted:
                continue
            item: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape, "parameters": {"note": STRINGS[6]}}
            raw = any(isinstance(element, bytes) for element in elements)
            if raw or wanted.get(name, {}).get("binary_data", all_binary):
                data = b"".join(_to_binary(element, kind) for element in elements)
                item["parameters"]["binary_data_size"] = len(data)
                binary.append(data)
            else:
                item["data"] = nest(elements, shape) if self.nested and all(shape) else elements
            described.append(item)
        answer = {
            "model_name": "m",
            "model_version": "3",
            "id": request.get("id") or "made-by-the-server",
            "parameters": {"data": [Number("1.10")], "took": Number("1e400")},
            "outputs": described,
        }
        json = write(answer).encode()
        body = b"".join([json, *binary])
        headers = [(b"content-type", b"application/json"), (b"x-model", b"m"), (b"content-length", b"%d" % len(body))]
        if binary:
            headers[0] = (b"content-type", b"application/octet-stream")
            headers.append((JSON_LENGTH, b"%d" % len(json)))
        return Answer(200, headers, body)


def _to_binary(element: Any, kind: str) -> bytes:
    """An element in binary; a number's characters stand for it, since what matters is that they arrive."""
    if isinstance(element, bytes):
        return element
    text = str(element).encode()
    if kind == "BYTES":
        return struct.pack("<I", len(text)) + text
    return text[-ITEM_BYTES[kind] :].rjust(ITEM_BYTES[kind])


def read_v2(answer: Answer) -> tuple[dict[str, Any], list[bytes], dict[bytes, bytes]]:
    """An answer's JSON, its binary tensors in order and its headers; checks that the lengths it states are true."""
    headers = dict(answer.headers)
    assert int(headers[b"content-length"]) == len(answer.body)
    at = int(headers.get(JSON_LENGTH, headers[b"content-length"]))
    json = read(answer.body[:at])
    binary = []
    for item in json["outputs"]:
        size = (item.get("parameters") or {}).get("binary_data_size")
        if size is not None:
            binary.append(answer.body[at : at + int(size)])
            at += int(size)
    assert at == len(answer.body)
    return json, binary, headers


def v1_server(call: Call) -> Answer:
    """KServe V1: every prediction is the instance, its checksum and the signature asked for."""
    request = read(call.body)
    predictions = [[item, Number(_row_sum(item)), request.get("signature_name")] for item in request["instances"]]
    body = write({"model": {"data": [Number("-0.0")]}, "predictions": predictions, "note": "a,b"}).encode()
    return Answer(200, [(b"content-type", b"application/json"), (b"x-model", b"m")], body)


def array_server(call: Call) -> Answer:
    """A bare array of rows: every answer is the row and its checksum."""
    body = write([[item, Number(_row_sum(item))] for item in read(call.body)]).encode()
    return Answer(200, [(b"content-type", b"application/json"), (b"x-model", b"m")], body)
