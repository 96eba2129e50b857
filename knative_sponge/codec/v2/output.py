"""One output tensor of a V2 answer, cut into the rows of each request. No whole answers here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from knative_sponge.codec.json.text import JsonError, JsonText, check_repeated, object_tail
from knative_sponge.codec.v2.input import BinaryTail, read_parameters
from knative_sponge.codec.v2.tensor import BYTES, Shape, cut_prefixed, cut_sized, read_shape, show_shape, write_shape
from knative_sponge.errors import UpstreamMismatch, shown

Pieces = list[bytes | memoryview]
_MOST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Share:
    """One request's rows of an output: pieces of its JSON, and its binary data when the output is binary."""

    json: Pieces
    binary: memoryview | None


def cut_output(text: JsonText, members: Mapping[str, bytes], tail: BinaryTail, rows: Sequence[int]) -> list[Share]:
    """Each request's share of an output, in order; `rows`: how many each one sent.

    Raises UpstreamMismatch when the output does not have as many rows, JsonError when it is not as V2 says.
    """
    rest = dict(members)
    if "shape" not in rest:
        raise JsonError("an output without shape")
    shape = read_shape(text, rest.pop("shape"))
    if shape is None:
        raise JsonError("an output whose shape is not whole numbers, at most 32")
    name = shown(rest.get("name", b'""')[1:-1].decode(errors="replace"), _MOST_SHOWN)
    if not shape or shape[0] != sum(rows):
        raise UpstreamMismatch(f"output {name} has shape {show_shape(shape)}; {sum(rows)} rows were asked")
    parameters = read_parameters(text, rest)
    size = parameters.pop("binary_data_size", None)
    data = rest.pop("data", None)
    check_repeated(rest, len(rows))
    try:
        if size is not None:
            if not size.isdigit() or len(size) > 18:
                raise JsonError("an output whose binary_data_size is not a whole number")
            rest.pop("parameters")
            others = object_tail({key: text.whole(value) for key, value in parameters.items()})
            pieces = _cut_binary(text, members, _take(tail, int(size)), shape, rows)
            return [
                Share(
                    [
                        b'{"shape":%b,"parameters":{"binary_data_size":%d%b%b'
                        % (write_shape(count, shape[1:]), len(piece), others, _rest(text, rest))
                    ],
                    piece,
                )
                for count, piece in zip(rows, pieces, strict=True)
            ]
        if data is None:
            raise JsonError("an output without data")
        end = b"]" + _rest(text, rest)
        return [
            Share([b'{"shape":%b,"data":[' % write_shape(count, shape[1:]), piece, end], None)
            for count, piece in zip(rows, _cut_json(text, data, shape, rows), strict=True)
        ]
    except ValueError as error:
        raise UpstreamMismatch(f"output {name} of shape {show_shape(shape)}: {error}") from error


def _rest(text: JsonText, members: Mapping[str, bytes]) -> bytes:
    return object_tail({key: text.whole(value) for key, value in members.items()})


def _take(tail: BinaryTail, size: int) -> memoryview:
    try:
        return tail.take(size)
    except ValueError as error:
        raise JsonError(str(error)) from error


def _cut_binary(
    text: JsonText, members: Mapping[str, bytes], data: memoryview, shape: Shape, rows: Sequence[int]
) -> list[memoryview]:
    each = prod(shape[1:])
    if text.string(members.get("datatype", b"null")) == BYTES:
        return cut_prefixed(data, [count * each for count in rows])
    row_bytes, odd = divmod(len(data), shape[0])
    if odd:
        raise ValueError(f"{len(data)} bytes are not equal rows")
    return cut_sized(data, rows, row_bytes)


def _cut_json(text: JsonText, data: bytes, shape: Shape, rows: Sequence[int]) -> Sequence[bytes | memoryview]:
    array = text.array(data)
    each = prod(shape[1:])
    if array.flat and each:
        return array.cut_flat([count * each for count in rows])
    try:
        elements = text.elements(array.raw, shape[0])
    except JsonError:  # many more than rows: one by one they would take more memory than the answer
        return array.cut_scalars([count * each for count in rows])
    if len(elements) == shape[0] * each:
        step = each
    elif len(elements) == shape[0]:
        step = 1
    else:
        raise ValueError(f"{len(elements)} elements")
    pieces = []
    at = 0
    for count in rows:
        pieces.append(b",".join(elements[at : at + count * step]))
        at += count * step
    return pieces
