"""Events merged into batches: no event's data or attributes change, and every reply finds the event it answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.codec.base import Answer, Part, RequestHead
from knative_sponge.codec.cloudevents.batched import CloudEventsCodec
from knative_sponge.errors import BadRequest, UpstreamBroken, UpstreamMismatch
from tests.codec.cloudevents.events import ATTRIBUTES, JSON, as_text, batch_of, binary, content_of, structured

CODEC = CloudEventsCodec()
BATCH = (b"content-type", b"application/cloudevents-batch+json")


def event(number: int | str, data: bytes = b"{}", kind: bytes = b"application/json", **more: str) -> Part:
    attributes = {"specversion": "1.0", "id": f"e-{number}", "source": "/s", "type": "t", **more}
    headers = [(f"ce-{name}".encode(), value.encode()) for name, value in attributes.items()]
    return CODEC.parse(RequestHead("POST", b"/", [*headers, (b"content-type", kind)]), data)


def reply(**more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "r", "source": "/server", "type": "t.done", **more}


def answer(replies: Sequence[Any], status: int = 200, kind: bytes = BATCH[1]) -> Answer:
    return Answer(status, [(b"content-type", kind), (b"x-model", b"m")], json.dumps(replies).encode())


@given(
    st.lists(
        st.tuples(ATTRIBUTES, st.binary(min_size=1, max_size=16) | JSON, st.sampled_from(["text/plain", "a/b", "x/y+json"])),
        min_size=2,
        max_size=4,
    ),
    st.data(),
)  # fmt: skip
def test_each_event_of_a_batch_is_the_event_that_was_sent(
    sent: list[tuple[dict[str, Any], Any, str]], data: st.DataObject
) -> None:
    requests = []
    for attributes, content, kind in sent:
        if data.draw(st.booleans()):
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            requests.append(binary(attributes, raw, kind))
        else:
            requests.append(structured(attributes, content, kind))
    parts = [CODEC.parse(*request) for request in requests]
    assert len({part.group for part in parts}) == 1
    call = CODEC.merge(parts)
    found = batch_of(call.headers, call.body)
    for one, (head, body), (attributes, _, kind) in zip(found, requests, sent, strict=True):
        if dict(head.headers)[b"content-type"] == b"application/cloudevents+json":
            assert one == json.loads(body)
            continue
        own = {name: value for name, value in one.items() if name not in ("data", "data_base64")}
        assert own == {"specversion": "1.0", **as_text(attributes), "datacontenttype": kind}
        content = content_of(one)
        if isinstance(content, bytes):
            assert content == body
        elif kind == "text/plain":
            assert content.encode() == body
        else:
            assert kind == "x/y+json"
            assert content == json.loads(body)


@pytest.mark.parametrize(
    ("kind", "data", "member"),
    [
        pytest.param(
            b"application/json", b' {"x":[1.10,-0.0,1e400]} ', b'"data": {"x":[1.10,-0.0,1e400]} }', id="JSON"
        ),
        pytest.param(b"a/b+json; v=1", b'"s"', b'"data":"s"}', id="a kind of JSON"),
        pytest.param(b"application/json", b"[1", b'"data_base64":"WzE="}', id="no JSON though it says so"),
        pytest.param(b"application/json", b"[NaN]", b'"data_base64":"W05hTl0="}', id="no JSON but nearly"),
        pytest.param(b"application/json", b'"\xff"', b'"data_base64":"Iv8i"}', id="not UTF-8"),
        pytest.param(b"text/plain; charset=utf-8", 'ä"'.encode(), 'data":"ä\\""}'.encode(), id="text"),
        pytest.param(b"text/plain; charset=latin-1", b"a", b'"data_base64":"YQ=="}', id="text in another encoding"),
        pytest.param(b"text/plain", b"\xff", b'"data_base64":"/w=="}', id="text that is not UTF-8"),
        pytest.param(b"image/png", b"\x89PNG", b'"data_base64":"iVBORw=="}', id="bytes"),
        pytest.param(b"application/json", b"", b'"datacontenttype":"application/json"}', id="no data"),
    ],
)
def test_binary_data_enters_a_batch_in_the_form_that_keeps_its_bytes(kind: bytes, data: bytes, member: bytes) -> None:
    call = CODEC.merge([event(1, data, kind), event(2)])
    assert call.body.split(b',{"specversion"')[0].endswith(member)


def test_a_structured_event_enters_a_batch_byte_for_byte() -> None:
    head = RequestHead("POST", b"/", [(b"content-type", b"application/cloudevents+json")])
    body = b' {"specversion":"1.0" ,"id":"1","source":"/s","type":"t","data":[1.10, NaN],"unset":null}\n'
    parts = [CODEC.parse(head, body) for _ in range(2)]
    assert CODEC.merge(parts).body == b"[" + body + b"," + body + b"]"
    assert parts[0].group != event(1).group, "NaN is no JSON: only those who send it share the risk"


def test_a_lone_event_is_sent_byte_for_byte_and_its_answer_left_alone() -> None:
    for part in (event(1), CODEC.parse(*structured({"id": "1", "source": "/s", "type": "t"}, [1], "a/b+json"))):
        call = CODEC.merge([part])
        assert (call.method, call.target, call.headers, call.body) == (
            "POST",
            b"/",
            part.head.headers,
            part.body,
        )
        one = Answer(200, (), b"anything")
        assert CODEC.split([part], one) == [one]


def test_a_batch_carries_what_its_members_share_and_nothing_of_one() -> None:
    def member(number: int) -> Part:
        head = event(number, subject=str(number)).head
        more = [(b"prefer", b"reply"), (b"authorization", b"x"), (b"traceparent", b"%d" % number)]
        return CODEC.parse(RequestHead("POST", b"/p", [*head.headers, *more]), b"{}")

    parts = [member(1), member(2)]
    assert parts[0].group == parts[1].group
    call = CODEC.merge(parts)
    assert (call.target, call.headers[:3]) == (b"/p", [(b"prefer", b"reply"), (b"authorization", b"x"), BATCH])
    assert not [name for name, _ in call.headers if name.startswith(b"ce-") or name == b"traceparent"]


def test_events_that_differ_in_path_or_credentials_do_not_share_a_batch() -> None:
    head = event(1).head
    other = [RequestHead("POST", b"/x", head.headers), RequestHead("POST", b"/", [*head.headers, (b"cookie", b"c")])]
    groups = {CODEC.parse(each, b"{}").group for each in (head, *other)}
    assert len(groups) == 3


def test_a_compressed_event_goes_alone() -> None:
    head = event(1).head
    packed = RequestHead("POST", b"/", [*head.headers, (b"content-encoding", b"gzip")])
    assert CODEC.parse(packed, b"\x1f").group != CODEC.parse(packed, b"\x1f").group


@given(st.permutations(range(4)), st.booleans())
def test_every_reply_finds_its_event_by_its_place_or_by_the_cause_it_names(order: list[int], named: bool) -> None:
    parts = [event(number) for number in range(4)]
    turns = order if named else list(range(4))
    replies = [
        reply(id=f"r-{turn}", turn=str(turn), **({"causationid": f"e-{turn}"} if named else {})) for turn in turns
    ]
    shares = CODEC.split(parts, answer(replies, 202))
    for number, share in enumerate(shares):
        assert share.status == 202
        headers = dict(share.headers)
        assert headers[b"content-type"] == b"application/cloudevents+json"
        assert headers[b"content-length"] == b"%d" % len(share.body)
        assert headers[b"x-model"] == b"m"
        message = HTTPMessage({name.decode(): value.decode() for name, value in share.headers}, share.body)
        attributes = from_structured_event(message).get_attributes()
        assert (attributes["id"], attributes["turn"]) == (f"r-{number}", str(number))


def test_replies_keep_their_bytes() -> None:
    raw = b'{"specversion":"1.0","id":"r","source":"/x","type":"t", "data":[1.10,1e400]}'
    whole = Answer(
        200, [(b"content-type", b"application/cloudevents-batch+json; charset=utf-8")], b"[%b ,%b]" % (raw, raw)
    )
    assert [share.body for share in CODEC.split([event(1), event(2)], whole)] == [raw, raw]


def test_an_empty_answer_to_a_batch_means_no_reply_for_anyone() -> None:
    shares = CODEC.split([event(1), event(2)], Answer(202, [], b""))
    assert [(share.status, share.body) for share in shares] == [(202, b"")] * 2


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_replies_is_a_mismatch(count: int) -> None:
    with pytest.raises(UpstreamMismatch, match=f"{count} events; 2 were asked"):
        CODEC.split([event(1), event(2)], answer([reply()] * count))


@pytest.mark.parametrize(
    "causes",
    [
        pytest.param(["e-1", "e-1"], id="two for one"),
        pytest.param(["e-2", None], id="one in the place of another"),
        pytest.param(["e-1", "e-9"], id="one for nobody"),
    ],
)
def test_replies_that_name_other_causes_reach_nobody(causes: list[str | None]) -> None:
    replies = [reply() if cause is None else reply(causationid=cause) for cause in causes]
    with pytest.raises(UpstreamMismatch, match="causes"):
        CODEC.split([event(1), event(2)], answer(replies))


def test_events_of_equal_id_are_answered_by_place_only() -> None:
    parts = [event(1, source="/a"), event(1, source="/b")]
    shares = CODEC.split(parts, answer([reply(id="x", causationid="e-1"), reply(id="y", causationid="e-1")]))
    assert [json.loads(share.body)["id"] for share in shares] == ["x", "y"]


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(answer([reply()] * 2, kind=b"application/json"), id="not said to be a batch"),
        pytest.param(Answer(200, [BATCH], b'{"a":1}'), id="no array"),
        pytest.param(Answer(200, [BATCH], b"[1,2]"), id="no events"),
        pytest.param(answer([reply(), reply(source="")]), id="one without a source"),
        pytest.param(Answer(200, [BATCH], b"[{},"), id="cut off"),
        pytest.param(Answer(200, [BATCH, (b"content-encoding", b"gzip")], b"x"), id="compressed"),
    ],
)
def test_what_is_no_batch_of_events_is_no_answer_to_one(whole: Answer) -> None:
    with pytest.raises(UpstreamBroken):
        CODEC.split([event(1), event(2)], whole)


@pytest.mark.parametrize(
    ("method", "headers", "wanted"),
    [
        ("POST", [(b"ce-specversion", b"1.0")], True),
        ("POST", [(b"content-type", b"application/cloudevents+json")], True),
        ("POST", [BATCH], False),
        ("POST", [(b"content-type", b"application/json")], False),
        ("GET", [(b"ce-specversion", b"1.0")], False),
    ],
)
def test_single_events_are_wanted_whatever_their_path(
    method: str, headers: list[tuple[bytes, bytes]], wanted: bool
) -> None:
    assert CODEC.wants(RequestHead(method, b"/any", headers)) is wanted


def test_a_malformed_event_is_refused() -> None:
    with pytest.raises(BadRequest, match="type"):
        event(1, type="")


@given(st.binary(max_size=30) | st.sampled_from([b"[]", b"[{},{}]"]), st.lists(st.integers(0, 60), max_size=3))
def test_a_spoiled_answer_is_split_or_refused(noise: bytes, cuts: list[int]) -> None:
    parts = [event(1), event(2)]
    body = answer([reply(), reply()]).body
    for at in cuts:
        body = body[:at] + noise + body[at + 1 :]
    try:
        shares = CODEC.split(parts, Answer(200, [BATCH], body))
    except (UpstreamBroken, UpstreamMismatch):
        return
    assert len(shares) == 2


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from([*b'",:{}[]\\\xff0N']).map(lambda b: bytes([b])))
    )
)
def test_a_spoiled_structured_event_is_refused_or_the_event_that_the_server_reads(
    edits: list[tuple[float, int, bytes]],
) -> None:
    body = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","n":3,"data":{"a":[1.5,"x\\u00e9"],"b":null}}'
    for where, drop, splice in edits[:3]:
        at = int(where * len(body))
        body = body[:at] + splice + body[at + drop :]
    head = RequestHead("POST", b"/", [(b"content-type", b"application/cloudevents+json")])
    try:
        part = CODEC.parse(head, body)
    except BadRequest:
        return
    batch = json.loads(CODEC.merge([part, event(2)]).body)
    assert batch[0] == json.loads(body)
    assert part.event is not None
    assert (batch[0]["id"], batch[0]["source"]) == (part.event.id, part.event.source)
