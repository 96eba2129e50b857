"""Events whose data are requests of a protocol: they merge like plain requests, with plain requests."""

from __future__ import annotations

import json

import pytest

from knative_sponge.codec.base import Answer, Part, RequestHead
from knative_sponge.codec.select import codec_for
from knative_sponge.errors import BadRequest
from tests.codec.servers import v1_server

PREDICT = b"/v1/models/m:predict"
EVENT = {"id": "e-1", "source": "/camera", "type": "frame"}
JSON = (b"content-type", b"application/json")


def binary(body: bytes, target: bytes = PREDICT, **attributes: str) -> tuple[RequestHead, bytes]:
    pairs = {"specversion": "1.0", **EVENT, **attributes}
    headers = [(f"ce-{name}".encode(), value.encode()) for name, value in pairs.items()]
    return RequestHead("POST", target, [*headers, JSON, (b"prefer", b"reply"), (b"kn-namespace", b"ns")]), body


def structured(body: bytes, target: bytes = PREDICT, **attributes: str) -> tuple[RequestHead, bytes]:
    text = json.dumps({"specversion": "1.0", **EVENT, **attributes}).encode()[:-1] + b', "data": ' + body + b"}"
    return RequestHead("POST", target, [(b"content-type", b"application/cloudevents+json")]), text


def plain(body: bytes, target: bytes = PREDICT) -> tuple[RequestHead, bytes]:
    return RequestHead("POST", target, [JSON]), body


def test_events_of_both_modes_merge_with_plain_requests_and_each_gets_its_rows() -> None:
    codec = codec_for("auto")
    requests = [
        plain(b'{"instances":[1.10]}'),
        binary(b'{"instances":[1e400,-0.0]}', id="e-2", subject="left"),
        structured(b'{"instances":[12345678901234567890]}', id="e-3"),
    ]
    parts = [codec.parse(*request) for request in requests]
    assert len({part.group for part in parts}) == 1
    assert [part.unwrapped for part in parts] == [False, True, True]
    assert [part.rows for part in parts] == [1, 2, 1]
    call = codec.merge(parts)
    assert call.body == b'{"instances":[1.10,1e400,-0.0,12345678901234567890]}'
    assert not [name for name, _ in call.headers if name.startswith(b"ce-") or name in (b"prefer", b"kn-namespace")]
    whole = json.loads(v1_server(call).body)["predictions"]
    shares = codec.split(parts, v1_server(call))
    assert [json.loads(share.body)["predictions"] for share in shares] == [whole[:1], whole[1:3], whole[3:]]


@pytest.mark.parametrize("request_", [binary(b'{"instances":[1]}'), structured(b'{"instances":[1]}')])
def test_a_lone_event_goes_as_the_plain_request_that_it_is(request_: tuple[RequestHead, bytes]) -> None:
    codec = codec_for("v1")
    part = codec.parse(*request_)
    call = codec.merge([part])
    assert (call.method, call.target, call.headers, call.body) == ("POST", PREDICT, [JSON], b'{"instances":[1]}')
    assert part.unwrapped
    assert part.event is not None
    assert (part.event.id, part.event.source, part.event.type) == ("e-1", "/camera", "frame")
    answer = Answer(200, (), b"x")
    assert codec.split([part], answer) == [answer]


def test_a_binary_tensor_may_come_as_an_event() -> None:
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}}]}'
    head, _ = binary(b"", b"/v2/models/m/infer")
    framed = RequestHead(
        head.method, head.target, [*head.headers, (b"inference-header-content-length", b"%d" % len(body))]
    )
    codec = codec_for("v2")
    parts = [codec.parse(framed, body + bytes([value])) for value in (0, 255)]
    assert parts[0].group == parts[1].group
    assert codec.merge(parts).body.endswith(b"\x00\xff")


def test_an_array_of_rows_may_come_as_an_event() -> None:
    codec = codec_for("json-array")
    parts = [codec.parse(*structured(b"[[1]]", b"/")), codec.parse(*plain(b"[[2]]", b"/"))]
    assert codec.merge(parts).body == b"[[1],[2]]"


@pytest.mark.parametrize("protocol", ["auto", "v1", "v2", "json-array"])
def test_the_data_of_an_event_is_refused_like_a_body(protocol: str) -> None:
    target = b"/v2/models/m/infer" if protocol == "v2" else PREDICT
    with pytest.raises(BadRequest, match="not JSON"):
        codec_for(protocol).parse(*binary(b"{", target))


@pytest.mark.parametrize("protocol", ["auto", "v1", "v2", "json-array"])
def test_a_malformed_event_is_refused(protocol: str) -> None:
    with pytest.raises(BadRequest, match="source"):
        codec_for(protocol).parse(*binary(b"[]", source=""))


def test_events_on_other_paths_are_not_wanted() -> None:
    assert not codec_for("auto").wants(binary(b"", b"/")[0])


def test_a_server_of_any_protocol_gets_the_event_as_it_came() -> None:
    codec = codec_for("none")
    for head, body in (binary(b"anything"), structured(b"[1]"), binary(b"", source=""), plain(b"{")):
        call = codec.merge([codec.parse(head, body)])
        assert (call.method, call.target, call.headers, call.body) == ("POST", head.target, head.headers, body)


def test_a_server_of_any_protocol_has_its_events_noticed_and_not_judged() -> None:
    codec = codec_for("none")

    def noticed(part: Part) -> str | None:
        assert not part.unwrapped
        return None if part.event is None else part.event.id

    assert noticed(codec.parse(*structured(b"[1]", id="s"))) == "s"
    assert noticed(codec.parse(*binary(b"{", id="b"))) == "b"
    assert noticed(codec.parse(*binary(b"{", specversion="0.3"))) is None
    assert noticed(codec.parse(*plain(b"{"))) is None


def test_a_merged_answer_that_calls_itself_an_event_makes_no_events_of_its_shares() -> None:
    codec = codec_for("v1")
    body, marks = b'{"predictions":[1,2]}', [(b"ce-id", b"a"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
    headers = [JSON, (b"x-version", b"ce-7"), (b"ce-specversion", b"1.0"), *marks]
    parts = [codec.parse(*binary(b'{"instances":[1]}')), codec.parse(*plain(b'{"instances":[2]}'))]
    for share in codec.split(parts, Answer(200, headers, body)):
        assert list(share.headers)[:2] == [JSON, (b"x-version", b"ce-7")]
        assert not [name for name, _ in share.headers if name.startswith(b"ce-")]
    assert codec.split(parts[:1], Answer(200, headers, body)) == [Answer(200, headers, body)]
