"""Events through the whole endpoint: what the model server sees, what reply is made, what eventing is told of failures."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event

from knative_sponge.codec.base import Answer, Call
from knative_sponge.core.batcher import BatchRules
from knative_sponge.core.defer import DeferRules
from knative_sponge.errors import UNDELIVERABLE, Reason, UpstreamBroken, UpstreamRefused
from knative_sponge.proxy.batching import Admission
from knative_sponge.proxy.events import source_of
from tests.proxy.broker import is_retried
from tests.proxy.harness import on_loop
from tests.proxy.inference_kit import PREDICT, FakeServer, Kit, Pending, Reply

NEVER = DeferRules(mode="never")
EVENT = {"ce_specversion": "1.0", "ce_source": "/camera", "ce_type": "com.example.frame"}
ENOUGH_S = 25.0


def in_s(seconds: float) -> str:
    """A timestamp so far from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def send(
    kit: Kit, number: int | str, *, path: bytes = PREDICT, body: bytes | None = None, **more: str
) -> asyncio.Task[Reply]:
    """An event in binary mode whose data is a V1 request of the one instance."""
    data = json.dumps({"instances": [number]}).encode() if body is None else body
    return kit.post(data, path, **{**EVENT, "ce_id": f"e-{number}", **more})


def structured(kit: Kit, data: Any, path: bytes = PREDICT, **more: Any) -> asyncio.Task[Reply]:
    """An event in structured mode."""
    event = {"specversion": "1.0", "id": "s", "source": "/camera", "type": "com.example.frame", **more, "data": data}
    return kit.post(json.dumps(event).encode(), path, content_type="application/cloudevents+json")


def event_of(reply: Reply) -> BaseCloudEvent:
    """The reply as the CloudEvents SDK reads it."""
    headers = {name.decode(): value.decode() for name, value in reply.headers.items()}
    return from_binary_event(HTTPMessage(headers, reply.body))


async def behind_a_batch(kit: Kit) -> Pending:
    """Occupy the only slot, so that what follows waits."""
    kit.send("first")
    return await kit.server.call(0)


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


# What eventing is told of failures.


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("left_s", [ENOUGH_S, 0.0, -1.0])
def test_an_event_is_sent_again_as_long_as_that_can_help_and_only_then(reason: Reason, left_s: float) -> None:
    status = reason.event_status(left_s)
    hopeless = reason in (Reason.BAD_REQUEST, Reason.EXPIRED, Reason.HOPELESS)
    assert is_retried(status) is (left_s > 0 and not hopeless)
    if is_retried(status):
        assert status == reason.status
    assert 400 <= status < 600


def test_a_malformed_request_keeps_its_own_status_and_so_does_a_failure_with_time_left() -> None:
    assert Reason.BAD_REQUEST.event_status(-1.0, 413) == 413
    assert Reason.UPSTREAM_ERROR.event_status(1.0, 503) == 503
    assert Reason.UPSTREAM_ERROR.event_status(-1.0, 503) == UNDELIVERABLE


@on_loop
async def test_an_event_that_has_expired_is_not_delivered_again() -> None:
    kit = Kit()
    binary, in_json = await send(kit, 1, ce_expirytime=in_s(-1)), await structured(kit, {}, expirytime=in_s(-1))
    for reply in (binary, in_json):
        assert (reply.status, reply.reason) == (UNDELIVERABLE, b"expired")
        assert "deadline" in reply.json["error"]
    assert not kit.server.calls


@on_loop
async def test_an_event_that_becomes_hopeless_is_not_delivered_again() -> None:
    kit = Kit()
    await behind_a_batch(kit)
    reply = await send(kit, 1, ce_expirytime=in_s(0.03))
    assert (reply.status, reply.reason) == (UNDELIVERABLE, b"hopeless")


@on_loop
async def test_an_event_that_the_model_server_holds_past_its_deadline_is_not_delivered_again() -> None:
    kit = Kit(admission=Admission(slo_s=0.05, timeout_s=60.0, grace_s=0.05))
    reply = await send(kit, 1)
    assert (reply.status, reply.reason) == (UNDELIVERABLE, b"timeout")


@on_loop
async def test_an_event_that_a_full_queue_turns_away_is_delivered_again_after_a_while() -> None:
    kit = Kit(rules=BatchRules(max_rows=1, max_queue=1, defer=NEVER))
    await behind_a_batch(kit)
    evicted, kept = send(kit, 1, ce_expirytime=in_s(20)), send(kit, 2, ce_expirytime=in_s(10))
    full = send(kit, 3, ce_expirytime=in_s(15))
    for reply, reason in ((await evicted, b"evicted"), (await full, b"queue-full")):
        assert (reply.status, reply.reason) == (503, reason)
        assert reply.headers[b"retry-after"] == b"1"
    kept.cancel()


@on_loop
async def test_a_retry_that_would_come_too_late_is_not_asked_for() -> None:
    kit = Kit(rules=BatchRules(max_rows=1, max_queue=1, defer=NEVER))
    await behind_a_batch(kit)
    send(kit, 1, ce_expirytime=in_s(0.8))
    await asyncio.sleep(0)
    full = await send(kit, 2, ce_expirytime=in_s(0.9))
    assert (full.status, full.reason) == (503, b"queue-full")
    assert b"retry-after" not in full.headers


@on_loop
async def test_an_event_that_meets_the_end_of_the_proxy_is_delivered_again() -> None:
    kit = Kit()
    client = send(kit, 1)
    await kit.server.call(0)
    await kit.endpoint.close()
    reply = await client
    assert (reply.status, reply.reason, reply.headers[b"retry-after"]) == (503, b"draining", b"1")


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        (UpstreamRefused("refused"), 502, b"upstream-refused"),
        (UpstreamBroken("broken"), 502, b"upstream-error"),
    ],
)
@on_loop
async def test_an_event_that_a_broken_model_server_lost_is_delivered_again(
    failure: Exception, status: int, reason: bytes
) -> None:
    kit = Kit()
    client = send(kit, 1)
    (await kit.server.call(0)).answer.set_exception(failure)
    reply = await client
    assert (reply.status, reply.reason) == (status, reason)


@on_loop
async def test_an_event_whose_deadline_passed_before_the_model_server_broke_is_not_delivered_again() -> None:
    kit = Kit(admission=Admission(slo_s=0.05, timeout_s=60.0, grace_s=20.0))
    client = send(kit, 1)
    call = await kit.server.call(0)
    await asyncio.sleep(0.06)  # the deadline passes
    call.answer.set_exception(UpstreamBroken("broken"))
    reply = await client
    assert (reply.status, reply.reason) == (UNDELIVERABLE, b"upstream-error")


@on_loop
async def test_a_malformed_event_is_not_delivered_again_and_told_what_is_wrong() -> None:
    kit = Kit()
    reply = await send(kit, 1, ce_type="")
    assert (reply.status, reply.reason) == (400, b"bad-request")
    assert "type" in reply.json["error"]


@on_loop
async def test_a_plain_request_is_told_what_it_always_was() -> None:
    kit = Kit(rules=BatchRules(max_rows=1, max_queue=1, defer=NEVER))
    await behind_a_batch(kit)
    expired = await kit.send("x", x_sponge_deadline="1000")
    assert (expired.status, expired.reason) == (504, b"expired")
    kit.send("waits", x_sponge_slo_ms="9000")
    await asyncio.sleep(0)
    full = await kit.send("full")
    assert (full.status, full.reason) == (503, b"queue-full")
    assert b"retry-after" not in full.headers


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
