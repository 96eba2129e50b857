"""The webhook's certificates: they change under open connections, end, fail to be read, or are made by another replica."""

from __future__ import annotations

import asyncio
import os
import ssl
import time

import pytest
from prometheus_client import CollectorRegistry

from knative_sponge.controller.admission.certificate import CertificateError, Due, make, renew
from knative_sponge.controller.admission.rotation import Rotation, SecretSource
from knative_sponge.controller.admission.webhook import WebhookServer
from knative_sponge.errors import KubeUnreachable
from tests.controller.admission.fake_store import SETTINGS, FakeStore
from tests.controller.admission.pod_kit import no_key
from tests.controller.admission.webhook_kit import (
    LIFETIME_S,
    LOCAL,
    NAMES,
    PATIENCE_S,
    Held,
    Serving,
    fresh,
    on_loops,
    serving,
    until,
)
from tests.controller.admission_kit import pod_with, question


@on_loops
async def test_new_connections_see_a_new_certificate_and_open_ones_live_on() -> None:
    first = fresh()
    second = renew(first, Due.SERVING, NAMES, LIFETIME_S, time.time())
    async with serving(Held(first)) as at:
        old = await at.connect()
        assert (await old.ask("/mutate/pods", question(pod_with())))[0] == 200
        reader, writer = old.reader, old.writer
        head = b"POST /mutate/pods HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        body = question(pod_with(), uid="across")
        writer.write(head % len(body) + body[:1000])
        await writer.drain()
        await at.show(second)
        new = await at.connect()
        assert new.serial != old.serial
        assert (await new.ask("/mutate/pods", question(pod_with())))[0] == 200
        writer.write(body[1000:])  # a review that began under the old certificate
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.split()[1] == b"200"
        assert b'"across"' in await reader.readuntil(b"}}")


@on_loops
async def test_who_trusts_only_a_new_authority_is_served_after_the_exchange() -> None:
    other = fresh()
    async with serving(Held(fresh())) as at:
        with pytest.raises(ssl.SSLCertVerificationError):
            await at.connect(other.authorities)
        await at.show(other)
        assert (await (await at.connect(other.authorities)).ask("/mutate/pods", question({})))[0] == 200


@on_loops
async def test_it_is_ready_when_the_first_certificate_is_there() -> None:
    async with serving(Held()) as at:
        assert not at.server.ready
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await at.connect(fresh().authorities)
        at.source.certificates = fresh()  # found by itself, nobody wakes it
        await until(lambda: at.server.ready)
        assert (await (await at.connect()).ask("/mutate/pods", question({})))[0] == 200


@on_loops
async def test_it_serves_on_while_certificates_cannot_be_read() -> None:
    async with serving(Held(fresh())) as at:
        shown = (await at.connect()).serial
        for error in (KubeUnreachable("no answer"), CertificateError("broken")):
            at.source.error = error
            before = at.source.reads
            at.server.wake()
            await until(lambda before=before: at.source.reads > before)  # type: ignore[misc]
            assert at.server.ready
            assert (await at.connect()).serial == shown


def test_a_replica_that_cannot_follow_its_certificates_any_more_says_so_and_gets_unready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails() -> None:
        async with serving(Held(fresh())) as at:
            at.source.error = RuntimeError("a mistake")
            at.server.wake()
            await until(lambda: not at.server.ready)

    asyncio.run(fails())
    assert "not followed any more" in caplog.text


@on_loops
async def test_it_is_not_ready_with_a_certificate_that_ended() -> None:
    clock = [time.time()]
    async with serving(Held(fresh()), now=lambda: clock[0]) as at:
        assert at.server.ready
        clock[0] += LIFETIME_S + 1
        ended = at.server.ready
        await at.show(make(NAMES, LIFETIME_S, clock[0]))
        assert (ended, at.server.ready) == (False, True)


@on_loops
async def test_the_end_of_the_certificate_is_a_metric() -> None:
    async with serving(Held(fresh())) as at:
        value = at.registry.get_sample_value("sponge_webhook_certificate_expiry_seconds")
        assert value is not None
        assert abs(value - time.time() - LIFETIME_S) < PATIENCE_S + 1


@on_loops
async def test_keys_lie_in_no_file_and_no_descriptor_is_left() -> None:
    async with serving(Held(fresh())) as at:
        before = os.listdir("/proc/self/fd")
        for _ in range(5):
            await at.show(fresh())
        assert len(os.listdir("/proc/self/fd")) == len(before)


@on_loops
async def test_a_follower_serves_with_what_the_leader_made() -> None:
    store = FakeStore()
    registry = CollectorRegistry()
    server = WebhookServer(SETTINGS, SecretSource(store, SETTINGS), registry, no_key, host=LOCAL)
    await server.start()
    rotation = Rotation(store, SETTINGS)
    await rotation.check()
    server.wake()
    await until(lambda: server.ready)
    (bundle,) = store.bundles
    connection = await Serving(server, Held(), registry).connect(bundle)
    assert (await connection.ask("/mutate/pods", question(pod_with())))[0] == 200
    connection.writer.close()
    await server.stop()
