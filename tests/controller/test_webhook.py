"""The webhook as the API server meets it: real TLS, real reviews, certificates that change under open connections."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry
from starlette.types import Message

from knative_sponge.controller.certificate import CertificateError, Certificates, Due, dns_names, make, renew
from knative_sponge.controller.review import Verdict
from knative_sponge.controller.rotation import Rotation, SecretSource
from knative_sponge.controller.webhook import LARGEST_REVIEW, WebhookServer, webhook_app
from knative_sponge.errors import KubeUnreachable
from tests.controller.admission import container, env_of, pod_with, question, stored, stored_after
from tests.controller.fake_store import SETTINGS, FakeStore

LOCAL = "127.0.0.1"
NAMES = dns_names(SETTINGS.webhook_service, SETTINGS.namespace)
LIFETIME_S = 3600.0
PATIENCE_S = 20.0
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
TOKEN = "a-token-that-no-log-may-show"


def on_loops(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop: str) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test()

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(bounded())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@dataclass
class Held:
    """Certificates that a test holds in its hand. error: raised instead."""

    certificates: Certificates | None = None
    error: Exception | None = None
    reads: int = 0

    async def read(self) -> Certificates | None:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.certificates


@dataclass
class Serving:
    server: WebhookServer
    source: Held
    registry: CollectorRegistry
    connections: list[Connection] = field(default_factory=list)

    async def connect(self, authorities: bytes | None = None) -> Connection:
        """A connection as the API server makes it: the name is checked against what it trusts."""
        if authorities is None:
            assert self.source.certificates is not None
            authorities = self.source.certificates.authorities
        context = ssl.create_default_context(cadata=authorities.decode())
        reader, writer = await asyncio.open_connection(
            LOCAL, self.server.port, ssl=context, server_hostname=NAMES[0], limit=2**24
        )
        self.connections.append(Connection(reader, writer))
        return self.connections[-1]

    async def show(self, certificates: Certificates) -> None:
        """Put other certificates in place and wait until they are taken up."""
        self.source.certificates = certificates
        before = self.source.reads
        self.server.wake()
        await until(lambda: self.source.reads > before)
        await asyncio.sleep(0)

    def count(self, webhook: str, outcome: str) -> float | None:
        labels = {"webhook": webhook, "outcome": outcome}
        return self.registry.get_sample_value("sponge_webhook_reviews_total", labels)


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def serial(self) -> str:
        """Of the certificate that this connection was shown."""
        serial: str = self.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        return serial

    async def ask(self, path: str, body: bytes, method: str = "POST") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: {NAMES[0]}\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        return int(answer.split()[1]), await self.reader.readexactly(length)


@asynccontextmanager
async def serving(source: Held, *, now: Callable[[], float] = time.time) -> AsyncIterator[Serving]:
    registry = CollectorRegistry()
    server = WebhookServer(SETTINGS, source, registry, host=LOCAL, new_token=lambda: TOKEN, now=now)
    await server.start()
    running = Serving(server, source, registry)
    try:
        if source.certificates is not None:
            await until(lambda: server.ready)
        yield running
    finally:
        for connection in running.connections:
            connection.writer.close()
        await server.stop()


def fresh() -> Certificates:
    return make(NAMES, LIFETIME_S, time.time())


@on_loops
async def test_a_pod_is_reviewed_over_tls() -> None:
    async with serving(Held(fresh())) as at:
        pod = pod_with()
        status, answer = await (await at.connect()).ask("/mutate/pods?timeout=5s", question(pod, uid="u-7"))
        assert status == 200
        assert json.loads(answer)["response"]["uid"] == "u-7"
        created = stored_after(pod, answer)
        assert container(created, "queue-proxy")["image"] == SETTINGS.proxy_image
        assert env_of(created)["SPONGE_CONTROL_TOKEN"] == TOKEN
        assert at.count("mutate/pods", "sponge") == 1


@on_loops
async def test_services_are_mutated_and_validated() -> None:
    async with serving(Held(fresh())) as at:
        service = stored("service")
        annotations = service["spec"]["template"]["metadata"]["annotations"]
        annotations["knative-sponge.dev/slo"] = "1s"
        connection = await at.connect()
        _, answer = await connection.ask("/mutate/services", question(service))
        changed = stored_after(service, answer)["spec"]["template"]["metadata"]["annotations"]
        assert changed["autoscaling.knative.dev/class"] == "sponge.knative-sponge.dev"
        annotations["knative-sponge.dev/slo"] = "soon"
        _, answer = await connection.ask("/validate/services", question(service))
        response = json.loads(answer)["response"]
        assert response["allowed"] is False
        assert "knative-sponge.dev/slo" in response["status"]["message"]
        assert at.count("mutate/services", "class-added") == 1
        assert at.count("validate/services", "refused") == 1


@on_loops
async def test_only_the_creation_of_a_pod_is_changed() -> None:
    async with serving(Held(fresh())) as at:
        pod = pod_with()
        _, answer = await (await at.connect()).ask("/mutate/pods", question(pod, old=pod, operation="UPDATE"))
        assert json.loads(answer)["response"] == {"uid": json.loads(question(pod))["request"]["uid"], "allowed": True}


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
async def test_reviews_side_by_side_do_not_mix() -> None:
    async with serving(Held(fresh())) as at:

        async def review(number: int) -> None:
            connection = await at.connect()
            for turn in range(5):
                uid, slo = f"{number}-{turn}", f"{1 + number * 5 + turn}ms"
                pod = pod_with({"slo": slo})
                _, answer = await connection.ask("/mutate/pods", question(pod, uid=uid))
                assert json.loads(answer)["response"]["uid"] == uid
                assert env_of(stored_after(pod, answer))["SPONGE_SLO"] == slo

        await asyncio.gather(*(review(number) for number in range(20)))
        assert at.count("mutate/pods", "sponge") == 100


@on_loops
async def test_what_is_no_review_is_refused_with_a_text() -> None:
    async with serving(Held(fresh())) as at:
        connection = await at.connect()
        status, text = await connection.ask("/mutate/pods", b'{"kind":"Pod"}')
        assert (status, text) == (400, b"the body is not an AdmissionReview of admission.k8s.io/v1\n")
        assert (await connection.ask("/mutate/pods", b"", method="GET"))[0] == 405
        assert (await connection.ask("/readyz", b""))[0] == 404
        assert at.count("mutate/pods", "bad-review") == 1


@on_loops
async def test_a_review_that_is_too_large_is_refused_and_the_next_one_is_answered() -> None:
    async with serving(Held(fresh())) as at:
        largest = question(pod_with())
        largest += b" " * (LARGEST_REVIEW - len(largest))
        assert (await (await at.connect()).ask("/mutate/pods", largest))[0] == 200
        assert (await (await at.connect()).ask("/mutate/pods", largest + b" "))[0] == 413
        assert (await (await at.connect()).ask("/mutate/pods", question(pod_with())))[0] == 200
        assert at.count("mutate/pods", "too-large") == 1


@on_loops
async def test_a_stop_lets_the_review_in_flight_be_answered() -> None:
    async with serving(Held(fresh())) as at:
        slow, quick = await at.connect(), await at.connect()
        body = question(pod_with(), uid="in-flight")
        slow.writer.write(
            b"POST /mutate/pods HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:500]
        )
        await quick.ask("/mutate/pods", question({}))  # what was written before it has arrived
        stopping = asyncio.create_task(at.server.stop())
        assert await quick.reader.read() == b""
        slow.writer.write(body[500:])
        answer = await slow.reader.read()
        assert answer.split()[1] == b"200"
        assert b'"in-flight"' in answer
        await stopping
        assert not at.server.ready


@on_loops
async def test_a_mistake_of_ours_is_a_500_and_counted() -> None:
    def fails(review: object) -> Verdict:
        raise RuntimeError("a mistake")

    registry = CollectorRegistry()
    app = webhook_app({"/x": fails}, registry)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": question({}), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "query_string": b""}
    with pytest.raises(RuntimeError):
        await app(scope, receive, send)
    assert sent[0]["status"] == 500
    assert registry.get_sample_value("sponge_webhook_reviews_total", {"webhook": "x", "outcome": "error"}) == 1


@on_loops
async def test_keys_lie_in_no_file_and_no_descriptor_is_left() -> None:
    async with serving(Held(fresh())) as at:
        before = os.listdir("/proc/self/fd")
        for _ in range(5):
            await at.show(fresh())
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_neither_pods_nor_tokens_nor_keys_reach_a_log(caplog: pytest.LogCaptureFixture) -> None:
    async def reviews() -> None:
        async with serving(Held(fresh())) as at:
            connection = await at.connect()
            pod = pod_with()
            container(pod, "user-container")["env"].append({"name": "PASSWORD", "value": "hunter2"})
            await connection.ask("/mutate/pods", question(pod))
            await connection.ask("/mutate/pods", question(pod).replace(b"AdmissionReview", b"Review"))
            await connection.ask("/validate/services", question(pod))

    with caplog.at_level(logging.DEBUG):
        asyncio.run(reviews())
    assert "/mutate/pods default/hello: sponge" in caplog.text
    for secret in ("hunter2", TOKEN, "BEGIN"):
        assert secret not in caplog.text


def test_tokens_are_long_and_all_different() -> None:
    async def tokens() -> set[str]:
        registry = CollectorRegistry()
        source = Held(fresh())
        server = WebhookServer(SETTINGS, source, registry, host=LOCAL)
        await server.start()
        await until(lambda: server.ready)
        connection = await Serving(server, source, registry).connect()
        pod = pod_with()
        answers = [(await connection.ask("/mutate/pods", question(pod)))[1] for _ in range(20)]
        connection.writer.close()
        await server.stop()
        return {env_of(stored_after(pod, answer))["SPONGE_CONTROL_TOKEN"] for answer in answers}

    found = asyncio.run(tokens())
    assert len(found) == 20
    assert all(len(token) >= 43 for token in found)


@on_loops
async def test_a_follower_serves_with_what_the_leader_made() -> None:
    store = FakeStore()
    registry = CollectorRegistry()
    server = WebhookServer(SETTINGS, SecretSource(store, SETTINGS), registry, host=LOCAL)
    await server.start()
    rotation = Rotation(store, SETTINGS)
    await rotation.look()
    server.wake()
    await until(lambda: server.ready)
    (bundle,) = store.bundles
    connection = await Serving(server, Held(), registry).connect(bundle)
    assert (await connection.ask("/mutate/pods", question(pod_with())))[0] == 200
    connection.writer.close()
    await server.stop()
