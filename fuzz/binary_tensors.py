"""Invariant: V2 requests and answers with binary tensors are understood or refused, and each request gets its own bytes back.

The input is JSON, a line `---` and the binary data. The header that says where the JSON ends is true, unless the first line
is `length <anything>`.
"""

from __future__ import annotations

from typing import Final

from fuzz.conservation import JSON_LENGTH, check_hostile_answer, check_rows, is_one_group, merged, split, understood
from fuzz.engine.cost import Bound, Meter
from fuzz.engine.session import start
from knative_sponge.codec.base import Answer, Headers, RequestHead
from knative_sponge.codec.select import codec_for

BOUND: Final = Bound()
TOKENS: Final = (
    b'{"inputs":[', b'{"name":"z","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}},', b'"shape":[',
    b"1,", b"1000000,", b'"datatype":"BYTES"', b'"datatype":"FP64"', b'"parameters":{"binary_data_size":',
    b'"binary_data_size":999999999999999999', b'{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}', b"]}",
    b"\n---\n", b"length 0\n", b"length 99999999999999999999\n", b"\x01\x00\x00\x00a", b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00", b'"outputs":[{"name":"z","parameters":{"binary_data":true}}]',
)  # fmt: skip
_CODEC: Final = codec_for("v2")
_TARGET: Final = b"/v2/models/m/infer"
_GOOD_JSON: Final = b'{"inputs":[{"name":"z","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}]}'
_ASKED, _ANSWERED = b'{"inputs":', b'{"outputs":'
_END: Final = b"\n---\n"


def check(data: bytes, meter: Meter) -> None:
    """See the module."""
    length, body = framed(data)
    fields: Headers = [(b"content-type", b"application/octet-stream"), (JSON_LENGTH, length)]
    head = RequestHead("POST", _TARGET, fields)
    good_head = RequestHead("POST", _TARGET, [fields[0], (JSON_LENGTH, b"%d" % len(_GOOD_JSON))])
    good = [_CODEC.parse(good_head, _GOOD_JSON + b"abcd") for _ in range(2)]
    check_hostile_answer(_CODEC, good, fields, body, meter)
    parts = understood(_CODEC, head, body, meter)
    if not parts or not is_one_group(parts):
        return
    if parts[0].group == good[0].group:
        parts.append(good[0])
    call = merged(_CODEC, parts, meter)
    check_rows(_CODEC, call, sum(part.rows for part in parts))
    json_bytes = int(dict(call.headers).get(JSON_LENGTH, len(call.body)))
    answer = _ANSWERED + call.body[len(_ASKED) :]
    longer = json_bytes + len(_ANSWERED) - len(_ASKED)
    shares = split(_CODEC, parts, Answer(200, [fields[0], (JSON_LENGTH, b"%d" % longer)], answer), meter)
    for part, share in zip(parts, shares, strict=False):
        asked_end = int(dict(part.head.headers)[JSON_LENGTH])
        answered_end = int(dict(share.headers).get(JSON_LENGTH, len(share.body)))
        used = len(share.body) - answered_end
        assert share.body[answered_end:] == part.body[asked_end : asked_end + used]
        assert used == len(part.body) - asked_end


def framed(data: bytes) -> tuple[bytes, bytes]:
    """The header that says where the JSON ends, and the body."""
    told = None
    if data.startswith(b"length "):
        told, _, data = data[len(b"length ") :].partition(b"\n")
        told = told.replace(b"\r", b"").strip()
    json, _, binary = data.partition(_END)
    return b"%d" % len(json) if told is None else told, json + binary


if __name__ == "__main__":
    start("binary_tensors")
