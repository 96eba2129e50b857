"""One input tensor of a V2 request: understood, and merged with its like. No whole requests here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

from knative_sponge.codec.json.array import Array
from knative_sponge.codec.json.skeleton import Skeleton, has_many_strings
from knative_sponge.codec.json.text import JsonText, object_tail
from knative_sponge.codec.v2.tensor import (
    BYTES,
    ITEM_BYTES,
    Shape,
    cut_prefixed,
    cut_sized,
    read_shape,
    show_shape,
    write_shape,
)
from knative_sponge.errors import BadRequest, shown

NULL = b"null"
_MOST_DIGITS = 18
_MOST_SHOWN = 60


class Form(Enum):
    """How the data is written; only tensors of one form can be joined."""

    FLAT = "flat"
    NESTED = "nested"
    BINARY = "binary"


class BinaryTail:
    """The binary tensors after the JSON of a request or answer, taken in order."""

    __slots__ = ("_data", "left")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.left = len(data)

    def take(self, size: int) -> memoryview:
        """The next `size` bytes. Raises ValueError when there are fewer."""
        if size > self.left:
            raise ValueError(f"binary_data_size is {size}, but only {self.left} bytes follow")
        start = len(self._data) - self.left
        self.left -= size
        return self._data[start : start + size]


@dataclass(frozen=True, slots=True)
class Input:
    """An input tensor of at least one row.

    rows, trailing: its shape. data: the elements; in JSON forms without the outer brackets.
    head: in binary form its parameters but the size, as the end of an object. rest: all its other members, likewise.
    key: equal for two inputs exactly when they can be joined along the first dimension.
    """

    rows: int
    trailing: Shape
    form: Form
    data: memoryview
    head: bytes
    rest: bytes
    key: Hashable


def read_input(text: JsonText, members: Mapping[str, bytes], tail: BinaryTail | None) -> Input | None:
    """An input from its JSON members; None when it may be right but cannot be merged.

    Raises BadRequest when its shape and its data contradict each other, JsonError when it is not as V2 says.
    """
    rest = dict(members)
    if not {"name", "shape", "datatype"} <= rest.keys():
        return None
    name, datatype = text.string(rest["name"]), text.string(rest["datatype"])
    shape = read_shape(text, rest.pop("shape"))
    parameters = read_parameters(text, members)
    if shape is None or any(name.startswith("shared_memory") for name in parameters):
        return None
    data = rest.pop("data", None)
    size = parameters.pop("binary_data_size", None)
    if datatype != BYTES and datatype not in ITEM_BYTES:
        return None
    head = b""
    try:
        if size is None and data is not None:
            found = _read_json(text.array(data), datatype, shape)
        elif size is not None and data is None and size.isdigit() and len(size) <= _MOST_DIGITS and tail is not None:
            found = _read_binary(tail.take(int(size)), datatype, shape)
            rest.pop("parameters")
            head = object_tail({key: text.whole(value) for key, value in parameters.items()})
        else:
            return None
    except ValueError as error:
        raise BadRequest(
            f"input {shown(name, _MOST_SHOWN)}: shape {show_shape(shape)} of {datatype}: {error}"
        ) from error
    if found is None or not prod(shape) or not shape:
        return None
    form, view = found
    others = {key: text.whole(value) for key, value in rest.items()}
    key = (shape[1:], form, head, tuple(sorted((key, text.compact(value)) for key, value in rest.items())))
    return Input(shape[0], shape[1:], form, view, head, object_tail(others), key)


def merge_inputs(inputs: Sequence[Input]) -> tuple[list[bytes | memoryview], list[memoryview]]:
    """One input of all rows, from inputs of equal key: pieces of its JSON, pieces of its binary data."""
    first = inputs[0]
    shape = b'{"shape":' + write_shape(sum(item.rows for item in inputs), first.trailing)
    if first.form is Form.BINARY:
        size = sum(len(item.data) for item in inputs)
        json = b'%b,"parameters":{"binary_data_size":%d%b%b' % (shape, size, first.head, first.rest)
        return [json], [item.data for item in inputs]
    pieces: list[bytes | memoryview] = [shape, b',"data":[']
    for item in inputs:
        pieces += (item.data, b",")
    pieces[-1] = b"]" + first.rest
    return pieces, []


def read_parameters(text: JsonText, members: Mapping[str, bytes]) -> dict[str, bytes]:
    """The parameters of a request, an input or an output; none when absent or null."""
    raw = members.get("parameters", NULL)
    return {} if raw == NULL else text.members(raw)


def _read_binary(data: memoryview, datatype: str, shape: Shape) -> tuple[Form, memoryview]:
    if datatype == BYTES:
        cut_prefixed(data, [prod(shape)])
    else:
        cut_sized(data, [prod(shape)], ITEM_BYTES[datatype])
    return Form.BINARY, data


def _read_json(array: Array, datatype: str, shape: Shape) -> tuple[Form, memoryview] | None:
    """Form and elements; None when the data is not plainly of the shape, ValueError when they contradict."""
    wanted = prod(shape)
    if array.flat:
        if datatype == BYTES:
            return None
        _expect(array.flat_size(), wanted)
        # `null` is no element, and a literal among numbers is no number.
        odd = array.has(b"null") if datatype == "BOOL" else array.has(b"u") or array.has(b"l")
        return None if odd else (Form.FLAT, array.inner)
    if has_many_strings(array.raw):
        return None
    skeleton = Skeleton.of(array.raw)
    for leaf in {BYTES: (b"S",), "BOOL": (b"t", b"")}.get(datatype, (b"",)):
        if skeleton.is_nested((wanted,), leaf):
            return Form.FLAT, array.inner
        if skeleton.is_nested(shape, leaf):
            return Form.NESTED, array.inner
    # Some server may take strings or literals as an encoding of its own. A wrong count of numbers is wrong everywhere.
    if not any(kind in skeleton.form for kind in b"Stn") and (leaves := skeleton.leaves()) is not None:
        _expect(leaves, wanted)
    return None


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"needs {wanted} elements, its data has {found}")
