"""Events through the whole endpoint: what the model server sees, and what reply is made."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from knative_sponge.codec.base import Answer, Call
from knative_sponge.core.batching.batcher import BatchRules
from knative_sponge.proxy.queue.cloudevent_replies import source_of
from tests.proxy.harness import on_loop
from tests.proxy.queue.event_kit import NEVER, event_of, in_s, send, structured
from tests.proxy.queue.inference_kit import FakeServer, Kit, behind_a_batch


@on_loop
async def test_events_and_plain_requests_share_a_call_and_only_events_get_events() -> None:
    kit = Kit(protocol="auto")
    first = await behind_a_batch(kit)
    clients = [send(kit, "1"), kit.send("plain"), structured(kit, {"instances": ["s"]}), send(kit, "2")]
    await asyncio.sleep(0)
    first.reply()
    merged = await kit.server.call(1)
    assert merged.instances == ["1", "plain", "s", "2"]
    merged.reply()
    one, plain, other, two = await asyncio.gather(*clients)
    assert [reply.json for reply in (one, plain, other, two)] == [
        {"predictions": [{"of": of}]} for of in ("1", "plain", "s", "2")
    ]
    assert not [name for name in plain.headers if name.startswith(b"ce-")]
    assert [event_of(reply).get_attributes()["causationid"] for reply in (one, other, two)] == ["e-1", "s", "e-2"]


@on_loop
async def test_a_reply_is_a_valid_event_that_says_what_it_answers() -> None:
    kit = Kit()
    client = send(
        kit, 1, ce_subject="room%20%E2%82%AC", ce_correlationid="flow-7", ce_partitionkey="p", ce_expirytime=in_s(25),
        ce_comexample="not taken over",
    )  # fmt: skip
    (await kit.server.call(0)).reply()
    reply = await client
    assert reply.status == 200
    event = event_of(reply)
    attributes = event.get_attributes()
    assert attributes["specversion"] == "1.0"
    assert attributes["source"] == "/"
    assert attributes["type"] == "com.example.frame.reply"
    assert abs(attributes["time"] - datetime.now(UTC)) < timedelta(minutes=5)
    assert attributes["datacontenttype"] == "application/json"
    taken = ("subject", "correlationid", "partitionkey", "causationid")
    assert [attributes[name] for name in taken] == ["room €", "flow-7", "p", "e-1"]
    assert "expirytime" in attributes
    assert "comexample" not in attributes
    assert event.get_data() == {"predictions": [{"of": 1}]}
    assert reply.headers[b"ce-subject"] == b"room%20%E2%82%AC"


@on_loop
async def test_a_repeated_event_gets_a_reply_of_the_same_id_and_no_other_event_does() -> None:
    kit = Kit(server=FakeServer(lambda call: Answer(200, [], call.body.replace(b"instances", b"predictions"))))
    ids = [
        event_of(await client).get_id()
        for client in (
            send(kit, 1), send(kit, 1), send(kit, 2), send(kit, 1, ce_source="/other"),
            send(kit, 1, path=b"/v1/models/n:predict"),
        )
    ]  # fmt: skip
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"ce-specversion", b"1.0"), (b"ce-id", b"own"), (b"ce-type", b"own")], id="binary"),
        pytest.param([(b"content-type", b"application/cloudevents+json")], id="structured"),
    ],
)
@on_loop
async def test_an_event_of_the_model_server_itself_is_left_alone(headers: list[tuple[bytes, bytes]]) -> None:
    kit = Kit(server=FakeServer(lambda _call: Answer(200, headers, b"own")))
    reply = await send(kit, 1)
    assert reply.body == b"own"
    assert {name: value for name, value in reply.headers.items() if name.startswith((b"ce-", b"content-"))} == dict(
        headers
    )


@on_loop
async def test_an_answer_without_a_body_stays_without_one() -> None:
    kit = Kit(server=FakeServer(lambda _call: Answer(204, [], b"")))
    reply = await send(kit, 1)
    assert (reply.status, reply.body) == (204, b"")
    assert not [name for name in reply.headers if name.startswith(b"ce-")]


@on_loop
async def test_a_failure_of_the_model_server_is_no_reply_event() -> None:
    kit = Kit(server=FakeServer(lambda _call: Answer(400, [], b'{"error":"no such input"}')))
    reply = await send(kit, 1)
    assert (reply.status, reply.json) == (400, {"error": "no such input"})
    assert not [name for name in reply.headers if name.startswith(b"ce-")]


@on_loop
async def test_an_event_that_answers_a_whole_batch_is_nobodys_own() -> None:
    event = [(b"ce-specversion", b"1.0"), (b"ce-id", b"same"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [send(kit, "1"), send(kit, "2"), kit.send("plain")]
    await asyncio.sleep(0)
    first.reply()
    body = b'{"predictions": [1, 2, 3]}'
    (await kit.server.call(1)).answer.set_result(Answer(200, [(b"content-type", b"application/json"), *event], body))
    one, two, plain = await asyncio.gather(*clients)
    assert [event_of(reply).get_extension("causationid") for reply in (one, two)] == ["e-1", "e-2"]
    assert event_of(one).get_id() != event_of(two).get_id()
    assert b"ce-id" not in plain.headers


@pytest.mark.parametrize("name", ["id", "type", "subject", "correlationid"])
@on_loop
async def test_an_event_whose_reply_nobody_could_read_is_refused(name: str) -> None:
    kit = Kit()
    attribute: dict[str, Any] = {name: "x" * 70_000}
    reply = await structured(kit, {"instances": [1]}, **attribute)
    assert (reply.status, reply.reason) == (400, b"bad-request")
    assert not kit.server.calls


@on_loop
async def test_a_reply_that_comes_back_is_refused_so_that_no_loop_begins() -> None:
    kit = Kit(server=FakeServer(lambda call: Answer(200, [], call.body.replace(b"instances", b"predictions"))))
    source = event_of(await send(kit, 1)).get_source()
    again = await send(kit, 2, ce_source=source)
    assert (again.status, again.reason) == (400, b"bad-request")
    assert "source" in again.json["error"]
    assert len(kit.server.calls) == 1


def test_the_source_of_replies_names_the_service_and_not_the_revision() -> None:
    assert source_of("ns", "ocr") == "/apis/serving.knative.dev/v1/namespaces/ns/configurations/ocr"


@on_loop
async def test_events_are_served_in_order_of_their_deadlines_whichever_mode_they_came_in() -> None:
    kit = Kit(rules=BatchRules(max_rows=1, defer=NEVER))
    first = await behind_a_batch(kit)
    send(kit, "c", ce_expirytime=in_s(20))
    structured(kit, {"instances": ["b"]}, expirytime=in_s(15))
    send(kit, "a", ce_expirytime=in_s(10))
    send(kit, "d", ce_expirytime=in_s(5), x_sponge_deadline=str((datetime.now(UTC).timestamp() + 25) * 1000))
    await asyncio.sleep(0)
    first.reply()
    order = []
    for number in range(1, 5):
        call = await kit.server.call(number)
        order += call.instances
        call.reply()
    assert order == ["a", "b", "c", "d"], "x-sponge-deadline comes before expirytime"


@on_loop
async def test_an_encoded_expirytime_counts() -> None:
    kit = Kit()
    reply = await send(kit, 1, ce_expirytime=in_s(-5).replace(":", "%3A").replace("+", "%2B"))
    assert reply.reason == b"expired"


@on_loop
async def test_in_structured_mode_the_body_and_not_a_header_says_when_the_event_expires() -> None:
    kit = Kit()
    body = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "expirytime": in_s(20),
        "data": {"instances": [1]},
    }
    client = kit.post(json.dumps(body).encode(), content_type="application/cloudevents+json", ce_expirytime=in_s(-20))
    (await kit.server.call(0)).reply()
    assert (await client).status == 200


# Model servers that speak CloudEvents.


def replies_to(call: Call) -> Answer:
    """A server of events: a reply to each event of a batch, or to the one event."""
    batched = dict(call.headers)[b"content-type"] == b"application/cloudevents-batch+json"

    def done(identity: str) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": f"r-{identity}",
            "source": "/model",
            "type": "done",
            "causationid": identity,
        }

    if batched:
        replies = [done(event["id"]) for event in json.loads(call.body)]
        return Answer(200, [(b"content-type", b"application/cloudevents-batch+json")], json.dumps(replies).encode())
    identity = dict(call.headers)[b"ce-id"].decode()
    return Answer(200, [(b"content-type", b"application/cloudevents+json")], json.dumps(done(identity)).encode())


@on_loop
async def test_waiting_events_go_to_a_server_of_events_as_one_batch() -> None:
    kit = Kit(protocol="cloudevents")
    first = send(kit, 0, path=b"/")
    call = await kit.server.call(0)
    assert dict(call.call.headers)[b"ce-id"] == b"e-0", "alone as it came"
    clients = [send(kit, number, path=b"/") for number in (1, 2, 3)]
    await asyncio.sleep(0)
    kit.server.respond = replies_to
    call.answer.set_result(replies_to(call.call))
    replies = [await client for client in (first, *clients)]
    assert [reply.json["id"] for reply in replies] == ["r-e-0", "r-e-1", "r-e-2", "r-e-3"]
    assert [reply.headers[b"sponge-batch"] for reply in replies] == [b"1", b"3", b"3", b"3"]
    assert len(kit.server.calls) == 2


@on_loop
async def test_a_server_that_takes_no_batches_gets_their_events_one_by_one() -> None:
    def respond(call: Call) -> Answer:
        single = dict(call.headers)[b"content-type"] != b"application/cloudevents-batch+json"
        return replies_to(call) if single else Answer(415, [], b"")

    kit = Kit(protocol="cloudevents")
    send(kit, 0)
    call = await kit.server.call(0)
    clients = [send(kit, number) for number in (1, 2)]
    await asyncio.sleep(0)
    kit.server.respond = respond
    call.answer.set_result(respond(call.call))
    assert [(await client).json["id"] for client in clients] == ["r-e-1", "r-e-2"]
    assert len(kit.server.calls) == 4


@on_loop
async def test_a_batch_that_is_answered_short_fails_all_its_events_and_they_are_delivered_again() -> None:
    kit = Kit(protocol="cloudevents")
    send(kit, 0)
    call = await kit.server.call(0)
    clients = [send(kit, number) for number in (1, 2)]
    await asyncio.sleep(0)
    call.answer.set_result(replies_to(call.call))
    merged = await kit.server.call(1)
    merged.answer.set_result(Answer(200, [(b"content-type", b"application/cloudevents-batch+json")], b"[]"))
    for client in clients:
        reply = await client
        assert (reply.status, reply.reason) == (502, b"upstream-mismatch")
