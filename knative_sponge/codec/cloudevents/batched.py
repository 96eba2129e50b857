"""Model servers that speak CloudEvents themselves: events that wait become one request in batched mode. Bytes in, bytes
out; no event's data is decoded.

Specification: CloudEvents 1.0.2, HTTP protocol binding §3.3 and JSON batch format. A structured event enters the batch
byte for byte. The data of a binary one enters as it stands when it is JSON, as a string when it is text, and otherwise,
or in doubt, as `data_base64`: the bytes that the server reads are the bytes that were sent.
"""

from __future__ import annotations

import base64
from collections.abc import Hashable, Sequence

import msgspec

from knative_sponge.codec.base import Answer, Call, CloudEvent, Headers, Part, RequestHead
from knative_sponge.codec.cloudevents.event import (
    BATCH_TYPE,
    STRUCTURED_TYPE,
    Mode,
    check_attributes,
    is_json,
    is_utf8,
    members_of,
    mode_of,
    read_event,
)
from knative_sponge.codec.headers import header, header_key, is_encoded, share_headers, shared_headers
from knative_sponge.codec.json.text import JsonError, JsonText
from knative_sponge.errors import BadRequest, UpstreamBroken, UpstreamMismatch

_ANY = msgspec.json.Decoder(msgspec.Raw)


class CloudEventsCodec:
    """Codec of events that are merged as events (docs/design.md §3.1, protocol `cloudevents`). An event is a row."""

    name: str = "cloudevents"

    def wants(self, head: RequestHead) -> bool:
        """Every POST of one event in binary mode or in JSON, whatever its path."""
        return head.method == "POST" and mode_of(head.headers) in (Mode.BINARY, Mode.STRUCTURED)

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """Understand one event. Raises BadRequest naming the attribute when it is none."""
        event = read_event(head, body)
        if event is None:
            return Part(1, object(), head, body)
        if mode_of(head.headers) is Mode.STRUCTURED:
            text = JsonText(body, lift=False)
            text.members(body, large="data")
            member, finite = body, not text.nonfinite
        else:
            if is_encoded(head.headers):
                return Part(1, object(), head, body, event=event)
            member, finite = _in_json(event), True
        group: Hashable = (self.name, head.method, head.target, header_key(_of_all(head.headers)), finite)
        return Part(1, group, head, body, member, event)

    def merge(self, parts: Sequence[Part]) -> Call:
        """One batch of events of equal group, in order. A single event is sent byte for byte as received."""
        head = parts[0].head
        if len(parts) == 1:
            return Call(head.method, head.target, head.headers, parts[0].body)
        members: list[bytes] = [part.detail for part in parts]
        body = b"[" + b",".join(members) + b"]"
        headers = [
            *shared_headers(_of_all(head.headers)),
            (b"content-type", BATCH_TYPE),
            (b"accept-encoding", b"identity"),
            (b"content-length", b"%d" % len(body)),
        ]
        return Call(head.method, head.target, headers, body)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """Each event's own reply, in structured mode byte for byte as in the batch; none for anyone without a body.

        A reply is for the event at its place in the batch, or for the one that its `causationid` (CloudEvents'
        correlation extension) names. Raises UpstreamMismatch when the number is wrong or the places contradict the
        ids, UpstreamBroken when the answer is no batch of events.
        """
        if len(parts) == 1:
            return [answer]
        headers = share_headers(answer.headers)
        if not answer.body:
            none = headers if answer.status == 204 else [*headers, (b"content-length", b"0")]
            return [Answer(answer.status, none, b"") for _ in parts]
        media = (header(answer.headers, b"content-type") or b"").partition(b";")[0].strip().lower()
        if media != BATCH_TYPE or is_encoded(answer.headers):
            raise UpstreamBroken("the answer to a batch of events is not in batched mode")
        text = JsonText(answer.body, lift=False)
        try:
            text.check()
            replies = text.elements(answer.body, len(parts))
        except JsonError as error:
            raise UpstreamBroken(f"the answer to a batch of events is no batch: {error}") from error
        if len(replies) != len(parts):
            raise UpstreamMismatch(f"the answer has {len(replies)} events; {len(parts)} were asked")
        order = _order([part.event.id if part.event is not None else "" for part in parts], _causes(text, replies))
        kept = [pair for pair in headers if not pair[0].startswith(b"ce-") and pair[0] != b"content-type"]
        kept.append((b"content-type", STRUCTURED_TYPE))
        return [
            Answer(answer.status, [*kept, (b"content-length", b"%d" % len(replies[at]))], replies[at]) for at in order
        ]


def _of_all(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that do not say what stands in the batch itself."""
    return [pair for pair in headers if not pair[0].startswith(b"ce-") and pair[0] != b"content-type"]


def _in_json(event: CloudEvent) -> bytes:
    """A binary event in the JSON format."""
    kind = event.attributes.get("datacontenttype")
    attributes = msgspec.json.encode(dict(event.attributes))
    if not event.data:
        return attributes
    value = _in_json_type(event.data, kind) if kind is not None and is_utf8(kind) else None
    if value is None:
        return attributes[:-1] + b',"data_base64":"' + base64.b64encode(event.data) + b'"}'
    return attributes[:-1] + b',"data":' + value + b"}"


def _in_json_type(data: bytes, kind: str) -> bytes | None:
    """JSON as it stands, text as a string; None when it is neither."""
    try:
        text = data.decode()
        if is_json(kind):
            _ANY.decode(data)
            return data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.json.encode(text) if kind[:5].lower() == "text/" else None


def _causes(text: JsonText, replies: Sequence[bytes]) -> list[str | None]:
    """Which event each reply says it answers."""
    causes = []
    for reply in replies:
        try:
            attributes, _ = members_of(text, reply)
            check_attributes(attributes)
        except BadRequest as error:
            raise UpstreamBroken(f"the answer to a batch of events has one that is none: {error}") from error
        causes.append(attributes.get("causationid"))
    return causes


def _order(ids: Sequence[str], causes: Sequence[str | None]) -> list[int]:
    """For each event the place of its reply."""
    places = {cause: place for place, cause in enumerate(causes)}
    if None not in places and len(places) == len(ids) and places.keys() == set(ids):
        return [places[one] for one in ids]
    if any(cause is not None and cause != one for one, cause in zip(ids, causes, strict=True)):
        raise UpstreamMismatch("the events of the answer name other causes than the events that were asked")
    return list(range(len(ids)))
