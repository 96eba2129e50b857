"""What must never happen (docs/design.md §6), each by name, and what a client sees. Failed calls: test_batch_failures."""

from __future__ import annotations

import asyncio

import pytest

from knative_sponge.codec.base import Answer, Call
from knative_sponge.core.batching.batcher import BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.proxy.queue.endpoint import RequestRules
from tests.proxy.harness import on_loop
from tests.proxy.queue.inference_kit import FakeServer, Kit, behind_a_batch

NEVER = DeferRules(mode="never")


@on_loop
async def test_each_client_gets_the_answer_to_its_own_rows_and_no_other() -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send(f"{n}a", f"{n}b") if n % 2 else kit.send(f"{n}a") for n in range(5)]
    await asyncio.sleep(0)
    first.reply()
    (await kit.server.call(1)).reply()
    replies = await asyncio.gather(*clients)
    assert len(kit.server.calls) == 2, "they went upstream as one call"
    for number, reply in enumerate(replies):
        rows = [f"{number}a", f"{number}b"] if number % 2 else [f"{number}a"]
        assert reply.status == 200
        assert reply.json == {"predictions": [{"of": row} for row in rows]}
        assert reply.headers[b"sponge-batch"] == b"7"


@on_loop
async def test_the_most_urgent_go_first_in_the_merged_call() -> None:
    kit = Kit(rules=BatchRules(max_rows=2, defer=NEVER))
    first = await behind_a_batch(kit)
    for name, slo_ms in (("c", "9000"), ("a", "5000"), ("d", "9500"), ("b", "7000")):
        kit.send(name, x_sponge_slo_ms=slo_ms)
    await asyncio.sleep(0)
    first.reply()
    second = await kit.server.call(1)
    assert second.instances == ["a", "b"]
    second.reply()
    assert (await kit.server.call(2)).instances == ["c", "d"]


@on_loop
async def test_a_cancelled_request_never_reaches_upstream() -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    gone, stays = kit.send("gone"), kit.send("stays")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    first.reply()
    second = await kit.server.call(1)
    assert second.instances == ["stays"]
    second.reply()
    assert (await stays).status == 200
    assert kit.counted("client-gone") == 1


@on_loop
async def test_a_call_that_nobody_waits_for_is_broken_off_and_the_next_goes_out() -> None:
    kit = Kit()
    client = kit.send("gone")
    call = await kit.server.call(0)
    following = kit.send("next")
    await asyncio.sleep(0)
    client.cancel()
    second = await kit.server.call(1)
    assert call.cancelled
    second.reply()
    assert (await following).status == 200


@on_loop
async def test_a_client_that_leaves_in_the_turn_of_its_dispatch_does_not_block_the_slot() -> None:
    kit = Kit()
    client = kit.send("gone")
    while not kit.batcher.running:  # dispatched, but the call's task has not made a step
        await asyncio.sleep(0)
    client.cancel()
    following = kit.send("next")
    while not any(pending.instances == ["next"] for pending in kit.server.calls):
        await asyncio.sleep(0)
    kit.server.calls[-1].reply()
    assert (await following).status == 200


@on_loop
async def test_a_deadline_that_has_passed_is_told_at_once() -> None:
    kit = Kit()
    reply = await kit.send("x", x_sponge_deadline="1000")
    assert (reply.status, reply.reason) == (504, b"expired")
    assert kit.counted("expired") == 1
    assert not kit.server.calls


@pytest.mark.parametrize("body", [b"", b"{", b'{"instances":[1]', b"\xff"])
@on_loop
async def test_what_is_no_request_of_the_protocol_is_refused_with_an_explanation(body: bytes) -> None:
    kit = Kit()
    reply = await kit.post(body)
    assert (reply.status, reply.reason) == (400, b"bad-request")
    assert reply.json["error"]
    assert not kit.server.calls


@on_loop
async def test_a_body_above_the_limit_is_refused_before_it_is_held() -> None:
    kit = Kit(requests=RequestRules(slo_s=1.0, timeout_s=60.0, max_body=100))
    announced = await kit.post(b"x" * 101, content_length="101")
    streamed = await kit.post(b"x" * 101)
    assert [(r.status, r.reason) for r in (announced, streamed)] == [(413, b"bad-request")] * 2
    assert "100" in announced.json["error"]


@on_loop
async def test_answers_tell_slack_batch_and_where_the_time_went() -> None:
    kit = Kit()
    client = kit.send("x", x_sponge_slo_ms="20000")
    (await kit.server.call(0)).reply()
    reply = await client
    assert 15_000 < int(reply.headers[b"sponge-slack-ms"]) <= 20_000
    assert reply.headers[b"sponge-batch"] == b"1"
    assert reply.headers[b"server-timing"].startswith(b"queue;dur=")
    assert kit.counted("ok") == 1


@on_loop
async def test_requests_that_differ_in_what_matters_are_not_merged() -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    kit.send("a", authorization="one")
    kit.send("b", authorization="two")
    kit.send("c", path=b"/v1/models/other:predict")
    await asyncio.sleep(0)
    first.reply()
    for number in (1, 2, 3):
        (await kit.server.call(number)).reply()
    assert sorted(pending.instances[0] for pending in kit.server.calls[1:]) == ["a", "b", "c"]


@on_loop
async def test_closing_answers_everyone_and_starts_nothing_new() -> None:
    kit = Kit()
    running = kit.send("running")
    call = await kit.server.call(0)
    waiting = kit.send("waiting")
    await asyncio.sleep(0)
    await kit.endpoint.close()
    for reply in (await running, await waiting):
        assert (reply.status, reply.reason) == (503, b"draining")
    assert call.cancelled
    assert len(kit.server.calls) == 1


@on_loop
async def test_late_requests_are_served_when_they_shall_be() -> None:
    rules = BatchRules(max_rows=1, serve_late=True, defer=NEVER)
    kit = Kit(rules=rules, requests=RequestRules(slo_s=30.0, timeout_s=60.0, serve_late=True))
    first = await behind_a_batch(kit)
    late, good = kit.send("late", x_sponge_slo_ms="1"), kit.send("good")
    await asyncio.sleep(0.01)  # let the first deadline pass
    first.reply()
    second = await kit.server.call(1)
    assert second.instances == ["good"]
    second.reply()
    third = await kit.server.call(2)
    assert third.instances == ["late"]
    third.reply()
    assert ((await late).status, (await good).status) == (200, 200)
    assert int((await late).headers[b"sponge-slack-ms"]) < 0
    assert kit.counted("late") == 1


@on_loop
async def test_ten_thousand_requests_in_random_order_each_get_their_own_answer() -> None:
    def respond(call: Call) -> Answer:
        return Answer(200, [], call.body.replace(b"instances", b"predictions"))

    kit = Kit(server=FakeServer(respond), rules=BatchRules(max_rows=32, max_inflight=3, defer=NEVER))
    for start in range(0, 10_000, 500):
        clients = {n: kit.send(n, x_sponge_slo_ms=str(20_000 + n * 7919 % 997)) for n in range(start, start + 500)}
        for number, client in clients.items():
            assert (await client).json == {"predictions": [number]}
    assert len(kit.server.calls) < 5_000


@on_loop
async def test_a_request_of_many_rows_is_served_alone_and_judged_by_all_of_them() -> None:
    kit = Kit()
    client = kit.send(*([0] * 20_000))
    call = await kit.server.call(0)
    assert next(iter(kit.batcher.running.values())).rows == 20_000
    call.reply()
    reply = await client
    assert len(reply.json["predictions"]) == 20_000
    assert reply.headers[b"sponge-batch"] == b"20000"
    assert kit.batcher.model.last_sample_s is None, "no measurement of what is planned"
    assert (await kit.send(*([0] * 100_000))).reason == b"hopeless", "a row takes a millisecond, and the SLO is 30 s"


@on_loop
async def test_lists_beside_the_predictions_are_cut_by_row_and_other_members_go_to_all() -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send("a"), kit.send("b", "c")]
    await asyncio.sleep(0)
    first.reply()
    (await kit.server.call(1)).reply(200, b'{"predictions":[1,2,3],"owners":["a","b","c"],"shape":[3,1],"version":"7"}')
    one, two = await asyncio.gather(*clients)
    assert one.json == {"predictions": [1], "owners": ["a"], "shape": [3, 1], "version": "7"}
    assert two.json == {"predictions": [2, 3], "owners": ["b", "c"], "shape": [3, 1], "version": "7"}
