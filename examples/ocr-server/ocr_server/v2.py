"""The Open Inference Protocol (V2) of this one model: bytes to image files, detections to bytes. No HTTP, no model.

The binary tensor data extension is understood both ways. An image file is no JSON string, so images come as binary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ocr_server import __version__
from ocr_server.detector import Detection
from ocr_server.regions import MAX_BOXES

MODEL: Final = "ocr"
HEADER_LENGTH: Final = "inference-header-content-length"
MAX_ROWS: Final = 256

SERVER_METADATA: Final = {"name": "ocr-server", "version": __version__, "extensions": ["binary_tensor_data"]}
MODEL_METADATA: Final = {
    "name": MODEL,
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [
        {"name": "text_share", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "boxes", "datatype": "FP32", "shape": [-1, MAX_BOXES, 5]},
    ],
}
_OUTPUTS: Final = ("text_share", "boxes")


class CallError(Exception):
    """The body is not a V2 call of this model; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class InferCall:
    """One understood call.

    images: the files, one per row, at least one.
    outputs: (name, as binary) of each output to answer with, in the client's order.
    """

    id: str | None
    images: list[bytes]
    outputs: list[tuple[str, bool]]


def parse(body: bytes, header_length: str | None) -> InferCall:
    """Understand a request's body; `header_length` is the extension's header, None when absent. Raises CallError."""
    size = _header_size(header_length, len(body))
    try:
        call = json.loads(body[:size])
    except ValueError as error:
        raise CallError(f"the call is not JSON: {error}") from error
    if not isinstance(call, dict):
        raise CallError("the call must be a JSON object")
    call_id = call.get("id")
    if call_id is not None and not isinstance(call_id, str):
        raise CallError("'id' must be a string")
    return InferCall(call_id, _images(call.get("inputs"), body[size:]), _wanted(call))


def answer(call: InferCall, found: Sequence[Detection]) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part when binary tensors follow it."""
    arrays: dict[str, NDArray[np.float32]] = {
        "text_share": np.array([[one.text_share] for one in found], np.float32),
        "boxes": np.stack([one.boxes for one in found]),
    }
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in call.outputs:
        array = arrays[name]
        output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
        if binary:
            tail.append(array.astype("<f4", copy=False).tobytes())
            output["parameters"] = {"binary_data_size": array.nbytes}
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    head: dict[str, Any] = {"model_name": MODEL, "model_version": "1", "outputs": outputs}
    if call.id is not None:
        head["id"] = call.id
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([text, *tail]), len(text) if tail else None


def _header_size(header_length: str | None, total: int) -> int:
    if header_length is None:
        return total
    if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > total:
        raise CallError(f"{HEADER_LENGTH}: {header_length!r} is not a length within the body of {total} bytes")
    return int(header_length)


def _images(inputs: object, tail: bytes) -> list[bytes]:
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        raise CallError("'inputs' must hold exactly one tensor, 'image'")
    tensor: dict[str, Any] = inputs[0]
    if tensor.get("name") != "image" or tensor.get("datatype") != "BYTES":
        raise CallError("the input must be named 'image' and have datatype BYTES")
    shape = tensor.get("shape")
    if not (isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 1 <= shape[0] <= MAX_ROWS):
        raise CallError(f"'image' must have shape [n] with n from 1 to {MAX_ROWS}")
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        raise CallError("'image' must be sent by the binary tensor extension: an image file is not a JSON string")
    if type(size) is not int or size != len(tail):
        raise CallError(f"binary_data_size is {size!r} but {len(tail)} bytes follow the JSON")
    return _elements(tail, shape[0])


def _elements(tail: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor: each a little-endian length of 4 bytes and that many bytes."""
    elements: list[bytes] = []
    at = 0
    for _ in range(count):
        end = at + 4 + int.from_bytes(tail[at : at + 4], "little")
        if at + 4 > len(tail) or end > len(tail):
            raise CallError(f"the binary data end inside element {len(elements)} of {count}")
        elements.append(tail[at + 4 : end])
        at = end
    if at != len(tail):
        raise CallError(f"{len(tail) - at} bytes are left after {count} elements")
    return elements


def _wanted(call: dict[str, Any]) -> list[tuple[str, bool]]:
    parameters = call.get("parameters")
    binary_all = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    wanted = call.get("outputs")
    if not wanted:
        return [(name, binary_all) for name in _OUTPUTS]
    if not isinstance(wanted, list):
        raise CallError("'outputs' must be an array")
    chosen: dict[str, bool] = {}
    for output in wanted:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in _OUTPUTS or name in chosen:
            raise CallError(f"'outputs' may name each of {', '.join(_OUTPUTS)} once, not {name!r}")
        own = output.get("parameters")
        binary = own.get("binary_data") if isinstance(own, dict) else None
        chosen[name] = binary_all if binary is None else binary is True
    return list(chosen.items())
