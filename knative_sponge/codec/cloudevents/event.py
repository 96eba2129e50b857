"""A CloudEvent read from an HTTP request, in binary or structured mode. Its data is never decoded; nothing is scheduled.

Specification: CloudEvents 1.0.2, HTTP protocol binding and JSON event format. The data of a structured event stays the
bytes that came: a JSON library would respell its numbers, and read a tensor twice.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from knative_sponge.codec.base import CloudEvent, Headers, RequestHead
from knative_sponge.codec.headers import is_encoded
from knative_sponge.codec.json.text import JsonError, JsonText
from knative_sponge.core.batching.deadline import rfc3339_s
from knative_sponge.errors import BadRequest, shown

STRUCTURED_TYPE = b"application/cloudevents+json"
BATCH_TYPE = b"application/cloudevents-batch+json"

_PREFIX = b"ce-"
_ANY_FORMAT = b"application/cloudevents"
_DATA: tuple[str, ...] = ("data", "data_base64")
_REQUIRED = ("id", "source", "type")
_JSON_TYPE = re.compile(r"[^/;\s]+/(?:[^/;\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_WHOLE = re.compile(rb"-?\d{1,19}")
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_MOST_SHOWN = 40


class Mode(Enum):
    """How an HTTP message carries events (HTTP binding §1.3)."""

    BINARY = auto()
    STRUCTURED = auto()
    OTHER = auto()
    """A batch, or a format other than JSON."""


def mode_of(headers: Headers) -> Mode | None:
    """How the message carries an event, None when it is no event: judged by its header alone, the same for both ways."""
    binary = False
    for name, value in headers:
        if name == b"content-type":
            media = value.partition(b";")[0].strip().lower()
            if media.startswith(_ANY_FORMAT):
                return Mode.STRUCTURED if media == STRUCTURED_TYPE else Mode.OTHER
        elif name == b"ce-specversion":
            binary = True
    return Mode.BINARY if binary else None


def read_event(head: RequestHead, body: bytes) -> CloudEvent | None:
    """The event that a request is, None when it is none.

    Raises BadRequest naming the attribute when it breaks the specification, with status 415 for batches, formats other
    than JSON and compressed structured events.
    """
    mode = mode_of(head.headers)
    if mode is None:
        return None
    if mode is Mode.OTHER:
        raise BadRequest("events are taken one by one, in binary mode or as application/cloudevents+json", status=415)
    event = _binary(head.headers, body) if mode is Mode.BINARY else _structured(head.headers, body)
    check_attributes(event.attributes)
    return event


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Raises BadRequest unless the attributes that every event has are there, and `time` is a time when it is."""
    version = attributes.get("specversion")
    if version != "1.0":
        raise BadRequest(f"not a CloudEvent of version 1.0: specversion is {_shown(version)}")
    for name in _REQUIRED:
        if not attributes.get(name, "").strip():
            raise BadRequest(f"not a CloudEvent: {name} is missing or empty")
    if "time" in attributes:
        try:
            rfc3339_s(attributes["time"])
        except (ValueError, OverflowError):
            raise BadRequest(
                f"not a CloudEvent: time is {_shown(attributes['time'])}; expected a timestamp as in RFC 3339"
            ) from None


def is_json(datacontenttype: str) -> bool:
    """Whether data of this type is JSON (JSON format §3.1.1)."""
    return _JSON_TYPE.fullmatch(datacontenttype) is not None


def is_utf8(datacontenttype: str) -> bool:
    """Whether the type names no encoding of characters but UTF-8 or a part of it."""
    found = _CHARSET.search(datacontenttype)
    return found is None or found[1].lower() in ("utf-8", "us-ascii")


def plain_head(head: RequestHead, event: CloudEvent) -> RequestHead:
    """The head of the plain request that the event's data is: what speaks of the event and its way is left out."""
    kept = [
        (name, value)
        for name, value in head.headers
        if not name.startswith(_PREFIX) and name not in (b"content-type", b"prefer", b"kn-namespace")
    ]
    if "datacontenttype" in event.attributes:
        kept.append((b"content-type", event.attributes["datacontenttype"].encode("latin-1")))
    return RequestHead(head.method, head.target, kept)


def members_of(text: JsonText, raw: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """An event in JSON: its attributes, and its `data` or `data_base64` as it stands. Raises BadRequest."""
    try:
        members = text.members(raw, large="data")
    except JsonError as error:
        raise BadRequest(f"not a CloudEvent in JSON: {error}") from None
    data = {name: members.pop(name) for name in _DATA if name in members}
    attributes = {
        name: _attribute(text, name, value) for name, value in members.items() if value != b"null"
    }  # an attribute that is null is not there (JSON format §2.2)
    return attributes, data


def _attribute(text: JsonText, name: str, raw: bytes) -> str:
    """The canonical text of an attribute's JSON value (JSON format §2.2)."""
    if raw in (b"true", b"false") or _WHOLE.fullmatch(raw):
        return raw.decode()
    try:
        return text.string(raw)
    except JsonError:
        expected = "a string, a whole number, true or false"
        raise BadRequest(f"not a CloudEvent: {shown(name, _MOST_SHOWN)} is not {expected}") from None


def _binary(headers: Headers, body: bytes) -> CloudEvent:
    attributes: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(_PREFIX):
            attribute = name[len(_PREFIX) :].decode("latin-1")
            if attribute in _DATA:  # in a batch it would stand beside the event's own
                raise BadRequest(f"not a CloudEvent: {attribute} is no attribute")
            if attribute not in attributes and attribute != "datacontenttype":
                attributes[attribute] = _decoded(attribute, value)
        elif name == b"content-type":
            attributes.setdefault("datacontenttype", value.decode("latin-1"))
    return CloudEvent(MappingProxyType(attributes), body)


def _decoded(name: str, value: bytes) -> str:
    """The attribute that a header value stands for (HTTP binding §3.1.3.2)."""
    if len(value) > 1 and value[:1] == b'"' == value[-1:]:
        value = _QUOTED_PAIR.sub(rb"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"not a CloudEvent: {name[:_MOST_SHOWN]} is not UTF-8") from None


def _structured(headers: Headers, body: bytes) -> CloudEvent:
    if is_encoded(headers):
        raise BadRequest("a structured CloudEvent must not be compressed", status=415)
    text = JsonText(body, lift=False)
    try:
        text.check()
    except JsonError as error:
        raise BadRequest(f"not a CloudEvent in JSON: {error}") from None
    attributes, data = members_of(text, body)
    kind = attributes.get("datacontenttype")
    if kind is not None and not (kind and kind.isascii() and kind.isprintable()):
        raise BadRequest(f"not a CloudEvent: datacontenttype is {_shown(kind)}; expected a media type")
    if len(data) > 1:
        raise BadRequest("not a CloudEvent: data and data_base64 exclude each other")
    if "data_base64" in data:
        content = _from_base64(text, data["data_base64"])
    elif "data" not in data:
        content = b""
    elif kind is None or is_json(kind):
        attributes.setdefault("datacontenttype", "application/json")
        content = data["data"]
    else:
        content = _from_string(text, kind, data["data"])
    return CloudEvent(MappingProxyType(attributes), content)


def _from_base64(text: JsonText, raw: bytes) -> bytes:
    try:
        return base64.b64decode(text.string(raw), validate=True)
    except (JsonError, binascii.Error, ValueError):
        raise BadRequest("not a CloudEvent: data_base64 is no text in base64") from None


def _from_string(text: JsonText, kind: str, raw: bytes) -> bytes:
    if not is_utf8(kind):
        raise BadRequest(f"data of type {_shown(kind)} must come as data_base64")
    try:
        return text.string(raw).encode()
    except (JsonError, UnicodeEncodeError):
        raise BadRequest(f"not a CloudEvent: data of type {_shown(kind)} is not a string") from None


def _shown(value: str | None) -> str:
    return "missing" if value is None else shown(value, _MOST_SHOWN)
