"""Reading events in binary and structured mode, against what the CloudEvents SDK writes and the specification's examples."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.codec.base import CloudEvent, RequestHead
from knative_sponge.codec.cloudevents.event import Mode, mode_of, plain_head, read_event
from knative_sponge.errors import BadRequest
from tests.codec.cloudevents.events import ATTRIBUTES, JSON, as_text, binary, structured

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def read(head: RequestHead, body: bytes) -> CloudEvent:
    event = read_event(head, body)
    assert event is not None
    return event


def in_headers(*more: tuple[bytes, bytes], **attributes: str | None) -> RequestHead:
    pairs = {**REQUIRED, **attributes}
    headers = [(f"ce-{name}".encode(), value.encode()) for name, value in pairs.items() if value is not None]
    return RequestHead("POST", b"/", [*headers, *more])


def in_json(body: bytes | dict[str, Any], kind: bytes = b"application/cloudevents+json") -> tuple[RequestHead, bytes]:
    text = json.dumps(body).encode() if isinstance(body, dict) else body
    return RequestHead("POST", b"/", [(b"content-type", kind)]), text


@given(attributes=ATTRIBUTES, data=st.binary(max_size=20), kind=st.sampled_from([None, "text/plain", "image/png"]))
def test_a_binary_event_of_the_sdk_is_read_as_it_was_meant(
    attributes: dict[str, Any], data: bytes, kind: str | None
) -> None:
    event = read(*binary(attributes, data, kind))
    expected = {"specversion": "1.0", **as_text(attributes)}
    assert dict(event.attributes) == (expected if kind is None else {**expected, "datacontenttype": kind})
    assert event.data == data


@given(attributes=ATTRIBUTES, data=st.binary(min_size=1, max_size=20) | JSON)
def test_a_structured_event_of_the_sdk_is_read_as_it_was_meant(attributes: dict[str, Any], data: Any) -> None:
    event = read(*structured(attributes, data, "application/json"))
    assert dict(event.attributes) == {
        "specversion": "1.0",
        **as_text(attributes),
        "datacontenttype": "application/json",
    }
    if isinstance(data, bytes):
        assert event.data == data
    else:
        assert (json.loads(event.data) if event.data else None) == data


def test_the_numbers_of_structured_data_stay_as_they_were_written() -> None:
    data = b'{"x":[1.10, -0.0,1e400 ,12345678901234567890],"x":"again"}'
    event = read(*in_json(b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data": %b }' % data))
    assert event.data == data
    assert event.attributes["datacontenttype"] == "application/json", "implied by the format, explicit elsewhere"


@pytest.mark.parametrize(
    ("kind", "member", "data"),
    [
        pytest.param("application/xml", '"data":"<a b=\\"c\\"/>"', b'<a b="c"/>', id="text of another type"),
        pytest.param("application/json", '"data":"{}"', b'"{}"', id="a string that looks like JSON is a string"),
        pytest.param("application/vnd.x+json", '"data":[1]', b"[1]", id="a subtype of JSON"),
        pytest.param("application/json", '"data":null', b"null", id="an explicit null"),
        pytest.param("application/json", '"data_base64":"AAH/"', b"\x00\x01\xff", id="bytes"),
        pytest.param("application/json", '"subject":null', b"", id="no data, and an attribute that is null"),
    ],
)
def test_structured_data_is_what_binary_mode_would_carry(kind: str, member: str, data: bytes) -> None:
    text = f'{{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"{kind}",{member}}}'
    event = read(*in_json(text.encode()))
    assert (event.data, event.attributes["datacontenttype"]) == (data, kind)
    assert "subject" not in event.attributes


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        (b"%e2%82%ac", "€"),
        (b"%41%62c", "Abc"),
        (b"100%", "100%"),
        (b"%zz", "%zz"),
        (b"a%2525", "a%25"),
        (b'"quoted \\" and \\\\ here"', 'quoted " and \\ here'),
        ("€ raw".encode(), "€ raw"),
    ],
)
def test_header_values_are_decoded_as_the_binding_says(value: bytes, meant: str) -> None:
    head = in_headers((b"ce-note", value))
    assert read(head, b"").attributes["note"] == meant


def test_of_repeated_headers_the_first_counts() -> None:
    assert read(in_headers((b"ce-id", b"second")), b"").id == "1"


def test_attributes_of_other_json_types_are_read_as_their_canonical_text() -> None:
    event = read(*in_json({**REQUIRED, "sampledrate": 30, "partial": True, "low": -2147483648}))
    assert [event.attributes[name] for name in ("sampledrate", "partial", "low")] == ["30", "true", "-2147483648"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"source": None}, "source"),
        ({"type": "  "}, "type"),
        ({"specversion": "0.3"}, "specversion is '0.3'"),
        ({"time": "yesterday"}, "time is 'yesterday'"),
        ({"time": "2023-11-14T22:13:22"}, "time"),
    ],
)
def test_a_malformed_event_is_refused_with_the_attribute_named(change: dict[str, str | None], named: str) -> None:
    attributes: dict[str, Any] = {**REQUIRED, **change}
    messages = [(in_headers(**change), b"{}")] if change.get("specversion", "") is not None else []
    for head, body in [*messages, in_json({name: value for name, value in attributes.items() if value is not None})]:
        with pytest.raises(BadRequest, match=named) as refused:
            read_event(head, body)
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"[]", "JSON"),
        (b'{"specversion":"1.0"', "JSON"),
        (b'{"specversion":"1.0","id":"\xff","source":"/s","type":"t"}', "JSON"),
        (b'{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}', "repeated"),
        (b'{"specversion":"1.0","source":"/s","type":"t"}', "id"),
        ({**REQUIRED, "id": 1.5}, "'id'"),
        ({**REQUIRED, "extension": {"a": 1}}, "'extension'"),
        ({**REQUIRED, "data_base64": "%"}, "data_base64"),
        ({**REQUIRED, "data_base64": 5}, "data_base64"),
        ({**REQUIRED, "data": 1, "data_base64": "AA=="}, "exclude"),
        ({**REQUIRED, "datacontenttype": "text/plain", "data": {"a": 1}}, "'text/plain' is not a string"),
        ({**REQUIRED, "datacontenttype": "text/plain; charset=koi8-r", "data": "a"}, "data_base64"),
        ({**REQUIRED, "datacontenttype": "a/b\r\nx-evil: 1", "data": "a"}, "datacontenttype"),
        ({**REQUIRED, "datacontenttype": "", "data": "a"}, "datacontenttype"),
        (b'{"specversion":"1.0","id":"\\ud800","source":"/s","type":"t"}', "JSON"),
    ],
)
def test_a_structured_event_that_breaks_the_format_is_refused(body: bytes | dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest, match=named) as refused:
        read_event(*in_json(body))
    assert refused.value.status == 400


@pytest.mark.parametrize("value", [b"%C0%A0", b"%ff", b"\xff", b"%F0%9F%98"])
def test_header_values_that_are_not_utf8_are_refused_with_the_attribute_named(value: bytes) -> None:
    with pytest.raises(BadRequest, match="note is not UTF-8"):
        read_event(in_headers((b"ce-note", value)), b"")


@pytest.mark.parametrize("name", [b"ce-data", b"ce-data_base64"])
def test_a_header_cannot_put_a_second_data_into_an_event(name: bytes) -> None:
    with pytest.raises(BadRequest, match=f"{name[3:].decode()} is no attribute"):
        read(in_headers((name, b"x")), b"{}")


@pytest.mark.parametrize(
    "kind", [b"application/cloudevents-batch+json", b"application/cloudevents+avro", b"Application/CloudEvents"]
)
def test_batches_and_other_formats_are_an_unsupported_media_type(kind: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read_event(*in_json(b"[]", kind))
    assert refused.value.status == 415


def test_a_compressed_structured_event_is_an_unsupported_media_type() -> None:
    head, body = in_json(REQUIRED)
    with pytest.raises(BadRequest) as refused:
        read_event(RequestHead("POST", b"/", [*head.headers, (b"content-encoding", b"gzip")]), body)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ([], None),
        ([(b"content-type", b"application/json")], None),
        ([(b"ce-id", b"1")], None),
        ([(b"ce-specversion", b"1.0")], Mode.BINARY),
        ([(b"content-type", b"application/cloudevents+json; charset=UTF-8")], Mode.STRUCTURED),
        ([(b"ce-specversion", b"1.0"), (b"content-type", b"APPLICATION/cloudevents+JSON")], Mode.STRUCTURED),
        ([(b"content-type", b"application/cloudevents-batch+json")], Mode.OTHER),
    ],
)
def test_the_mode_is_told_by_the_header(headers: list[tuple[bytes, bytes]], mode: Mode | None) -> None:
    assert mode_of(headers) is mode


def test_the_plain_request_keeps_nothing_that_speaks_of_the_event_or_its_way() -> None:
    head = in_headers(
        (b"host", b"h"), (b"content-type", b"application/json"), (b"prefer", b"reply"), (b"kn-namespace", b"ns"),
        (b"authorization", b"me"), subject="x",
    )  # fmt: skip
    plain = plain_head(head, read(head, b"[]"))
    assert plain.headers == [(b"host", b"h"), (b"authorization", b"me"), (b"content-type", b"application/json")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"ce-specversion", b"ce-id", b"ce-source", b"ce-type", b"ce-time", b"content-type", b"ce-x"]),
            st.binary(max_size=8) | st.sampled_from([b"1.0", b"application/cloudevents+json"]),
        ),
        max_size=8,
    ),
    st.binary(max_size=40),
)  # fmt: skip
def test_whatever_comes_is_an_event_or_none_or_refused(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    try:
        event = read_event(RequestHead("POST", b"/", headers), body)
    except BadRequest:
        return
    if event is not None:
        assert all((event.id.strip(), event.source.strip(), event.type.strip()))
