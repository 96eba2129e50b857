"""Invariant: an event is understood or refused in either mode; in a batch it is the event that came; a reply can be made to it.

The input is an HTTP message: lines of `name: value`, an empty line, the body.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from fuzz.conservation import JUDGED, check_hostile_answer, is_one_group, merged, split, understood
from fuzz.engine.cost import Bound, Meter
from fuzz.engine.session import start
from fuzz.head import FIELDS, HEAD_BYTES, deadline
from knative_sponge.codec.base import Answer, CloudEvent, Codec, Part, RequestHead
from knative_sponge.codec.cloudevents.event import BATCH_TYPE
from knative_sponge.codec.select import codec_for
from knative_sponge.errors import BadRequest
from knative_sponge.proxy.http.framing import field_lines
from knative_sponge.proxy.queue.cloudevent_replies import check_reply_possible, reply

BOUND: Final = Bound()
TOKENS: Final = (
    b"ce-specversion: 1.0\n", b"ce-id: 1\n", b"ce-source: /s\n", b"ce-type: t\n", b"ce-time: 2030-01-01T00:00:00Z\n",
    b"ce-expirytime: 2030-01-01T00:00:00.000000001+01:00\n", b"ce-data: x\n", b"ce-a: %C3%A9\n", b'ce-a: "\\""\n',
    b"ce-subject: s\n", b"content-type: application/cloudevents+json\n",
    b"content-type: application/cloudevents-batch+json\n", b"content-type: text/plain\n",
    b"content-type: application/json; charset=utf-8\n", b"content-encoding: gzip\n", b"\n\n", b'{"specversion":"1.0"',
    b',"id":"1"', b',"source":"/s"', b',"type":"t"', b',"data":', b',"data_base64":"AAAA"',
    b',"datacontenttype":"text/plain"', b',"time":"', b"null", b',"ext":true', b',"ext":-12',
    b'{"instances":[[1,2]]}', b"%", b"%ff", b"\\", b'"', b"}", b"[", b"]", b",", b"<", b"\x7f", b"\xff",
)  # fmt: skip
_TARGETS: Final = {"cloudevents": b"/", "auto": b"/v1/models/m:predict", "none": b"/"}
_CODECS: Final = {name: codec_for(name) for name in _TARGETS}
_GOOD: Final = [
    (b"ce-specversion", b"1.0"), (b"ce-id", b"good"), (b"ce-source", b"/g"), (b"ce-type", b"g"),
    (b"content-type", b"application/json"),
]  # fmt: skip
_SOURCE: Final = "/apis/serving.knative.dev/v1/namespaces/n/configurations/c"
_BATCH: Final = [(b"content-type", BATCH_TYPE)]


def check(data: bytes, meter: Meter) -> None:
    """See the module."""
    headers, body = message(data)
    if sum(len(name) + len(value) for name, value in headers) > HEAD_BYTES or len(headers) > FIELDS:
        return  # the data port lets no such head in
    for name, codec in _CODECS.items():
        head = RequestHead("POST", _TARGETS[name], headers)
        if not codec.wants(head):
            continue
        parts = understood(codec, head, body, meter)
        for part in parts[:1]:
            meter(len(data), waits, part)
            meter(len(data), replied, part)
        if name == "cloudevents":
            good = [codec.parse(RequestHead("POST", b"/", _GOOD), b"[1]") for _ in range(2)]
            check_hostile_answer(codec, good, _BATCH, body, meter)
            if parts and is_one_group(parts):
                check_batch(codec, [*parts, *(good[:1] if good[0].group == parts[0].group else ())], meter)


def message(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Header pairs as the data port hands them on, and the body."""
    head, _, body = data.partition(b"\n\n")
    pairs = (line.partition(b":") for line in head.split(b"\n"))
    return [(name.strip().lower(), value.strip().replace(b"\r", b"")) for name, _, value in pairs if name.strip()], body


def waits(part: Part) -> None:
    """When the event must be answered is found as the queue finds it."""
    deadline(part.head.headers, None if part.event is None else part.event.attributes)


def replied(part: Part) -> None:
    """An event that a reply is possible to gets one that fits into a head: no line of it is two."""
    try:
        check_reply_possible(part, _SOURCE)
    except BadRequest:
        return
    made = reply(part, Answer(200, [(b"content-length", b"1")], b"1"), _SOURCE, 1.7e9)
    field_lines(made.headers)


def check_batch(codec: Codec, parts: Sequence[Part], meter: Meter) -> None:
    """In a batch every event is what it was alone, and its reply is the one at its place."""
    call = merged(codec, parts, meter)
    if len(call.body) <= 3 * JUDGED:
        try:
            batch = json.loads(call.body)
        except (RecursionError, ValueError):
            batch = None  # msgspec reads what the standard library does not: numbers of 5,000 digits
        if batch is not None:
            assert len(batch) == len(parts)
            for part, member in zip(parts, batch, strict=True):
                if part.event is not None:
                    check_member(part.event, member)
    for part, share in zip(parts, split(codec, parts, Answer(200, _BATCH, call.body), meter), strict=False):
        assert share.body == part.detail.strip()


def check_member(event: CloudEvent, member: dict[str, Any]) -> None:
    """The event as the standard library reads it in the batch."""
    for name in ("id", "source", "type", "subject"):
        assert member.get(name) == event.attributes.get(name), name
    if "data_base64" in member:
        assert base64.b64decode(member["data_base64"]) == event.data
    elif isinstance(member.get("data"), str) and event.data.lstrip()[:1] != b'"':
        assert member["data"].encode("utf-8", "surrogatepass") == event.data


if __name__ == "__main__":
    start("cloud_events")
