"""The webhook as the API server meets it: real TLS, real reviews."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from prometheus_client import CollectorRegistry

from knative_sponge.asgi import Message
from knative_sponge.controller.admission.admission_review import Verdict
from knative_sponge.controller.admission.bodies import LARGEST_REVIEW
from knative_sponge.controller.admission.webhook import webhook_app
from tests.controller.admission.fake_store import SETTINGS
from tests.controller.admission.webhook_kit import DIGEST, Held, fresh, on_loops, serving
from tests.controller.admission_kit import container, env_of, pod_with, question, stored, stored_after


@on_loops
async def test_a_pod_is_reviewed_over_tls() -> None:
    async with serving(Held(fresh())) as at:
        pod = pod_with()
        status, answer = await (await at.connect()).ask("/mutate/pods?timeout=5s", question(pod, uid="u-7"))
        assert status == 200
        assert json.loads(answer)["response"]["uid"] == "u-7"
        created = stored_after(pod, answer)
        assert container(created, "queue-proxy")["image"] == SETTINGS.proxy_image
        assert env_of(created)["SPONGE_CONTROL_TOKEN_SHA256"] == DIGEST
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


def test_a_mistake_of_ours_is_a_500_and_counted(caplog: pytest.LogCaptureFixture) -> None:
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

    async def ask() -> None:
        for _ in range(3):
            await app(dict(scope), receive, send)

    asyncio.run(ask())
    assert [message["status"] for message in sent if "status" in message] == [500] * 3
    assert registry.get_sample_value("sponge_webhook_reviews_total", {"webhook": "x", "outcome": "error"}) == 3
    assert caplog.text.count("cannot be judged") == 1, "once a minute, or a stranger fills the log"


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
    for secret in ("hunter2", DIGEST, "BEGIN"):
        assert secret not in caplog.text
