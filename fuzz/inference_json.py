"""Invariant: whatever JSON comes as a request of V2, V1 or a bare array, or as the answer to one, rows are conserved: two
requests that share a call get back what each of them would get alone, and nobody pays for more than was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fuzz.conservation import JUDGED, check_hostile_answer, check_rows, is_one_group, merged, split, understood
from fuzz.engine.cost import Bound, Meter
from fuzz.engine.session import start
from knative_sponge.codec.base import Answer, Call, Codec, Part, RequestHead
from knative_sponge.codec.select import codec_for
from tests.codec.servers import leaves
from tests.codec.tokens import read

BOUND: Final = Bound()
TOKENS: Final = (
    b'{"inputs":[', b'{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}', b'"shape":[', b'"data":[',
    b'"datatype":"BYTES"', b'"parameters":{"binary_data_size":4}', b'"id":"i"', b'"outputs":[{"name":"y"}]',
    b'{"instances":[', b'{"predictions":[', b'"signature_name":"s"', b"0,", b"[0],", b"[", b"]", b"{", b"}", b",",
    b":", b'"', b"\\", b"NaN", b"-Infinity", b"null", b"true", b"1e400", b"-0", b'"a"', b'"\\ud800"', b'"\\u0000"',
    b" ", b"\n", b"\x7f0", b'"\x7f0"', b"\xff", b'{"a":1},', b'[1,"a"],', b"1000000,",
)  # fmt: skip

GOOD: Final = {
    "v2": b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[5,6]}]}',
    "v1": b'{"instances":[[1,2],[3,4]]}',
    "json-array": b"[[1,2],[3,4]]",
}
TARGETS: Final = {"v2": b"/v2/models/m/infer", "v1": b"/v1/models/m:predict", "json-array": b"/rows"}
_ASKED: Final = {"v2": b'{"inputs":', "v1": b'{"instances":', "json-array": b""}
_ANSWERED: Final = {"v2": b'{"outputs":', "v1": b'{"predictions":', "json-array": b""}
_CODECS: Final = {name: codec_for(name) for name in TARGETS}
_JSON: Final = [(b"content-type", b"application/json")]


def check(data: bytes, meter: Meter) -> None:
    """See the module."""
    for name, codec in _CODECS.items():
        head = RequestHead("POST", TARGETS[name], _JSON)
        good = [codec.parse(head, GOOD[name]) for _ in range(2)]
        check_hostile_answer(codec, good, _JSON, data, meter)
        parts = understood(codec, head, data, meter)
        if parts and is_one_group(parts):
            if parts[0].group == good[0].group:
                parts.append(good[0])
            check_merge(name, codec, parts, meter)


def check_merge(name: str, codec: Codec, parts: Sequence[Part], meter: Meter) -> None:
    """What requests get merged of a server that answers with what it was asked is what each of them asked."""
    call = merged(codec, parts, meter)
    check_rows(codec, call, sum(part.rows for part in parts))
    shares = split(codec, parts, echo(name, call), meter)
    for part, share in zip(parts, shares, strict=False):
        if len(part.body) <= JUDGED:
            check_own(name, part.body, share.body)


def echo(name: str, call: Call) -> Answer:
    """The answer whose rows are those of the call."""
    assert call.body.startswith(_ASKED[name])
    return Answer(200, _JSON, _ANSWERED[name] + call.body[len(_ASKED[name]) :])


def check_own(name: str, asked: bytes, answered: bytes) -> None:
    """A share holds what its request held, number by number."""
    try:
        question, answer = read(asked), read(answered)
    except (RecursionError, UnicodeDecodeError):
        return
    if name == "json-array":
        assert answer == question
    elif name == "v1":
        assert answer["predictions"] == question["instances"]
    else:
        assert tensors(answer["outputs"]) == tensors(question["inputs"])
        assert answer.get("id") == question.get("id")


def tensors(items: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What the tensors of a request or an answer hold, nested or flat."""
    return [(item["name"], item["datatype"], item["shape"], leaves(item["data"])) for item in items]


if __name__ == "__main__":
    start("inference_json")
