"""What becomes of a batch whose call fails, hangs or is answered with nonsense, and of a defect of ours (docs/design.md §6)."""

from __future__ import annotations

import asyncio
import logging

import pytest

from knative_sponge.codec.base import Answer, Call
from knative_sponge.errors import UpstreamBroken, UpstreamError, UpstreamRefused
from knative_sponge.proxy.queue.endpoint import RequestRules
from tests.proxy.harness import on_loop
from tests.proxy.queue.inference_kit import Kit, behind_a_batch


@on_loop
async def test_a_poisoned_request_does_not_fail_its_batch_mates() -> None:
    def respond(call: Call) -> Answer:
        if b"poison" in call.body:
            return Answer(400, [], b'{"error":"bad instance"}')
        return Answer(200, [], call.body.replace(b"instances", b"predictions"))

    kit = Kit()
    first = await behind_a_batch(kit)
    kit.server.respond = respond
    clients = [kit.send("good"), kit.send("poison"), kit.send("fine")]
    await asyncio.sleep(0)
    first.reply()
    good, poisoned, fine = await asyncio.gather(*clients)
    assert (good.status, good.json) == (200, {"predictions": ["good"]})
    assert (fine.status, fine.json) == (200, {"predictions": ["fine"]})
    assert (poisoned.status, poisoned.json) == (400, {"error": "bad instance"})
    assert len(kit.server.calls) == 5, "one alone, one merged, then each of the three once"


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        pytest.param(UpstreamBroken("connection lost"), 502, b"upstream-error", id="broken connection"),
        pytest.param(UpstreamRefused("connection refused"), 502, b"upstream-refused", id="refused connection"),
    ],
)
@on_loop
async def test_after_a_broken_call_nothing_is_sent_again_and_each_member_is_told_why(
    failure: UpstreamError, status: int, reason: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send(n) for n in range(3)]
    await asyncio.sleep(0)
    first.reply()
    (await kit.server.call(1)).answer.set_exception(failure)
    for reply in await asyncio.gather(*clients):
        assert (reply.status, reply.reason) == (status, reason)
        assert str(failure) in reply.json["error"]
    assert set(caplog.messages) == {f"{reason.decode()}: {failure}"}, "the operator reads it too"
    again = kit.send("later")
    (await kit.server.call(2)).reply()
    assert (await again).status == 200, "the slot is free again"
    assert len(kit.server.calls) == 3


@on_loop
async def test_after_a_5xx_nothing_is_sent_again_and_no_member_reads_of_another() -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send(f"secret-{n}") for n in range(3)]
    await asyncio.sleep(0)
    first.reply()
    merged = await kit.server.call(1)
    merged.reply(500, b'{"error":"cannot handle secret-1"}')
    for reply in await asyncio.gather(*clients):
        assert (reply.status, reply.reason) == (500, b"upstream-error")
        assert b"secret" not in reply.body
        assert "500" in reply.json["error"]
    assert len(kit.server.calls) == 2


@on_loop
async def test_a_5xx_to_a_request_alone_is_its_own_answer() -> None:
    kit = Kit()
    client = kit.send("x")
    (await kit.server.call(0)).reply(503, b"busy")
    reply = await client
    assert (reply.status, reply.body, reply.reason) == (503, b"busy", b"upstream-error")


@pytest.mark.parametrize("body", [b'{"predictions":[1,2]}', b'{"predictions":[1,2,3,4]}'])
@on_loop
async def test_a_wrong_number_of_rows_fails_the_batch_with_its_reason(body: bytes) -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send(n) for n in range(3)]
    await asyncio.sleep(0)
    first.reply()
    (await kit.server.call(1)).reply(200, body)
    for reply in await asyncio.gather(*clients):
        assert (reply.status, reply.reason) == (502, b"upstream-mismatch")


@on_loop
async def test_an_answer_of_another_protocol_fails_the_batch_with_its_reason() -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send(n) for n in range(2)]
    await asyncio.sleep(0)
    first.reply()
    (await kit.server.call(1)).reply(200, b"<html>")
    for reply in await asyncio.gather(*clients):
        assert (reply.status, reply.reason) == (502, b"upstream-error")


@on_loop
async def test_a_hanging_model_server_leaves_nobody_waiting_past_deadline_and_grace() -> None:
    kit = Kit(requests=RequestRules(slo_s=0.05, timeout_s=60.0, grace_s=0.05))
    client = kit.send("x")
    call = await kit.server.call(0)
    reply = await client
    assert (reply.status, reply.reason) == (504, b"timeout")
    while kit.batcher.running:  # the slot is free as soon as the call is broken off
        await asyncio.sleep(0)
    assert call.cancelled


@on_loop
async def test_waiting_behind_a_hanging_call_ends_when_the_deadline_is_hopeless() -> None:
    kit = Kit()
    await behind_a_batch(kit)
    reply = await kit.send("x", x_sponge_slo_ms="30")
    assert (reply.status, reply.reason) == (504, b"hopeless")


@on_loop
async def test_neither_bodies_nor_headers_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send("body-secret", authorization="header-secret") for _ in range(2)]
    await asyncio.sleep(0)
    first.reply()
    (await kit.server.call(1)).answer.set_exception(RuntimeError("a defect of ours"))
    for reply in await asyncio.gather(*clients):
        assert (reply.status, reply.reason) == (502, b"upstream-error")
        assert b"defect" not in reply.body
    assert "failed inside the proxy" in caplog.text
    assert "secret" not in caplog.text


@on_loop
async def test_a_defect_of_ours_after_the_call_leaves_nobody_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit()
    first = await behind_a_batch(kit)
    clients = [kit.send(n) for n in range(3)]
    await asyncio.sleep(0)
    first.reply()

    def broken(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(kit.endpoint._codec, "split", broken)
    (await kit.server.call(1)).reply()
    for reply in await asyncio.gather(*clients):
        assert (reply.status, reply.reason) == (502, b"upstream-error")
    again = kit.send("again")
    (await kit.server.call(2)).reply()
    assert (await again).status == 200
