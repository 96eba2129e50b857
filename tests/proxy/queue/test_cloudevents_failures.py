"""What eventing is told of an event that failed: whether sending it again can help."""

from __future__ import annotations

import asyncio

import pytest

from knative_sponge.core.batching.batcher import BatchRules
from knative_sponge.errors import UNDELIVERABLE, Reason, UpstreamBroken, UpstreamRefused
from knative_sponge.proxy.queue.endpoint import RequestRules
from knative_sponge.proxy.queue.wiring import Inference
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ServingSettings
from tests.proxy.harness import model_server, on_loop, proxy
from tests.proxy.live import proxy_settings
from tests.proxy.queue.broker import is_retried
from tests.proxy.queue.event_kit import EVENT, NEVER, in_s, send, structured
from tests.proxy.queue.inference_kit import PREDICT, Kit, behind_a_batch
from tests.proxy.wire import LOCAL, Wire, client


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("left_s", [25.0, 0.0, -1.0])
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
    kit = Kit(requests=RequestRules(slo_s=0.05, timeout_s=60.0, grace_s=0.05))
    reply = await send(kit, 1)
    assert (reply.status, reply.reason) == (UNDELIVERABLE, b"timeout")


@on_loop
async def test_an_event_that_the_revision_timeout_ends_before_its_deadline_is_delivered_again() -> None:
    kit = Kit(requests=RequestRules(slo_s=10.0, timeout_s=0.05, grace_s=0.0))
    reply = await send(kit, 1, ce_expirytime=in_s(60))
    assert (reply.status, reply.reason) == (504, b"timeout")


@on_loop
async def test_a_late_event_that_the_revision_timeout_ends_is_not_delivered_again() -> None:
    kit = Kit(requests=RequestRules(slo_s=0.02, timeout_s=0.1, serve_late=True), rules=BatchRules(serve_late=True))
    reply = await send(kit, 1)
    assert (reply.status, reply.reason) == (UNDELIVERABLE, b"timeout")


@on_loop
async def test_a_full_proxy_answers_the_revision_timeout_of_an_event_as_the_event_needs_it() -> None:
    async def silent(wire: Wire) -> None:
        await wire.gone()

    async with model_server(silent) as fake:
        settings = proxy_settings(fake.port, timeout_s=1)
        serving = ServingSettings.from_annotations(
            {"knative-sponge.dev/slo": "50ms", "knative-sponge.dev/late": "serve", "knative-sponge.dev/protocol": "v1"}
        )
        inference = Inference(settings, serving, Upstream(LOCAL, fake.port))
        async with proxy(fake, inference=inference.endpoint, timeout_s=1) as port, client(port) as one:
            event = b"".join(b"%b: %b\r\n" % (k.replace("_", "-").encode(), v.encode()) for k, v in EVENT.items())
            body = b'{"instances": [1]}'
            length = b"ce-id: 1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            await one.send(b"POST " + PREDICT + b" HTTP/1.1\r\nHost: a\r\n" + event + length + body)
            reply = await one.reply("POST")
        assert (reply.status, reply.field(b"sponge-reason")) == (UNDELIVERABLE, b"timeout")
        await inference.close()


@on_loop
async def test_an_event_that_a_full_queue_turns_away_is_delivered_again_after_a_while() -> None:
    kit = Kit(rules=BatchRules(max_rows=1, max_queue=1, displace=True, defer=NEVER))
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
    kit = Kit(requests=RequestRules(slo_s=0.05, timeout_s=60.0, grace_s=20.0))
    client = send(kit, 1)
    call = await kit.server.call(0)
    await asyncio.sleep(0.06)  # the deadline passes
    call.answer.set_exception(UpstreamBroken("broken"))
    reply = await client
    assert (reply.status, reply.reason) == (UNDELIVERABLE, b"upstream-error")


@on_loop
async def test_an_event_that_the_network_made_late_is_not_delivered_again() -> None:
    """Of 60 s nearly all had passed on arrival; its deadline, not its whole budget, ends what a repetition can save."""
    kit = Kit(requests=RequestRules(slo_s=60.0, timeout_s=60.0, grace_s=20.0, max_network_share=0.999))
    client = send(kit, 1, ce_time=in_s(-3600))
    call = await kit.server.call(0)
    await asyncio.sleep(0.07)  # the deadline passes
    call.answer.set_exception(UpstreamBroken("broken"))
    reply = await client
    assert (reply.status, reply.reason) == (UNDELIVERABLE, b"upstream-error")


@on_loop
async def test_an_event_that_the_network_left_time_is_delivered_again() -> None:
    kit = Kit(requests=RequestRules(slo_s=60.0, timeout_s=60.0))
    client = send(kit, 1, ce_time=in_s(-40))
    (await kit.server.call(0)).answer.set_exception(UpstreamBroken("broken"))
    reply = await client
    assert (reply.status, reply.reason) == (502, b"upstream-error")


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
