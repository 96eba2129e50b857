"""Reviews that no API server would send, of objects that strangers wrote. Any pod can reach the webhook's port."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from typing import Any

import pytest

from knative_sponge.controller.admission import bodies, loop_share
from knative_sponge.controller.admission.admission_review import BadReview, Review, Verdict, read_review, write_review
from knative_sponge.controller.admission.bodies import LARGEST_REVIEW
from knative_sponge.controller.admission.pod import review_pod
from knative_sponge.controller.admission.service import mutate_service, validate_service
from tests.controller.admission.pod_kit import minted
from tests.controller.admission.webhook_kit import Held, fresh, serving
from tests.controller.admission_kit import pod_with, question, stored

PREFIX = "knative-sponge.dev/"
MIB = 2**20


def mutate_pod(review: Review) -> Verdict:
    assert review.new is not None
    return review_pod(review.new, "queue-proxy:1", lambda _namespace, _cores: minted(), namespace="shop")


def many(count: int, name: str, value: str = "x") -> dict[str, str]:
    return {f"{name}{number}": value for number in range(count)}


ANNOTATIONS = {
    "a setting of 1 MiB": {f"{PREFIX}max-batch": "x" * MIB},
    "a number of 1 MiB": {f"{PREFIX}max-batch": "1" * MIB},
    "1 MiB of settings that do not exist": many(30_000, f"{PREFIX}a"),
    "1 MiB of somebody else's": many(45_000, "example.dev/a"),
    "a name of 1 MiB": {f"{PREFIX}{'a' * MIB}": "x"},
}


def objects(annotations: dict[str, str]) -> dict[str, tuple[Any, Any]]:
    """Each kind of review, with its rule."""
    pod, service = pod_with(), stored("service")
    pod["metadata"]["annotations"] |= annotations
    template = service["spec"]["template"]["metadata"]
    template["annotations"] = {f"{PREFIX}slo": "500ms"} | annotations
    service["metadata"].setdefault("annotations", {}).update(annotations)
    return {
        "pod": (pod, mutate_pod),
        "mutated service": (service, mutate_service),
        "validated service": (service, validate_service),
    }


@pytest.mark.parametrize("kind", objects({}))
@pytest.mark.parametrize("annotations", ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_a_review_with_1_mib_of_annotations_costs_linear_time(annotations: dict[str, str], kind: str) -> None:
    """The worst took 1.05 s, and 3.4 s for each 16,000 digits of a duration; the budget is for 2.7 MB."""
    new, rule = objects(annotations)[kind]
    body = question(new)
    begun_s = time.process_time()
    review = read_review(body)
    answer = write_review(review, rule(review))
    assert time.process_time() - begun_s < 0.4
    assert len(answer) < 3 * len(body)


def test_faults_without_number_are_named_in_a_short_answer() -> None:
    new, rule = objects(ANNOTATIONS["1 MiB of settings that do not exist"])["validated service"]
    review = read_review(question(new))
    answer = write_review(review, rule(review))
    assert not json.loads(answer)["response"]["allowed"]
    assert len(answer) < 20_000


@pytest.mark.parametrize("text", [b"[],", b'{"a":1},', b"0,"], ids=["lists", "objects", "numbers"])
def test_a_body_of_tiny_values_takes_a_small_multiple_of_its_size(text: bytes) -> None:
    """4 MiB of empty lists took 0.35 s and 95 MB."""
    filler = text * ((LARGEST_REVIEW - 1000) // len(text))
    head = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",'
    body = head + b'"object":{"a":[' + filler[:-1] + b"]}}}"
    tracemalloc.start()
    begun_s = time.process_time()
    with pytest.raises(BadReview, match="values"):
        read_review(body)
    assert time.process_time() - begun_s < 0.05
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * (LARGEST_REVIEW - 10), b'"' + b"\\u0041" * 600_000]
)
def test_what_is_deep_or_long_is_refused(text: bytes) -> None:
    begun_s = time.process_time()
    with pytest.raises(BadReview):
        read_review(text)
    assert time.process_time() - begun_s < 0.1


def test_reviews_that_come_too_slowly_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "READ_S", 0.05)

    async def body() -> None:
        async with asyncio.timeout(20), serving(Held(fresh())) as at:
            connection = await at.connect()
            connection.writer.write(b"POST /mutate/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in await connection.reader.readline()
            assert at.count("mutate/pods", "too-slow") == 1

    asyncio.run(body())


def test_all_bodies_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_LARGEST_SUM", 100_000)

    async def body() -> None:
        async with asyncio.timeout(20), serving(Held(fresh())) as at:
            held, late = await at.connect(), await at.connect()
            head = b"POST /mutate/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n"
            held.writer.write(head + b" " * 60_000)
            await held.writer.drain()
            late.writer.write(head + b" " * 60_000)
            for connection in (held, late):
                await connection.writer.drain()
            done, pending = await asyncio.wait(
                [asyncio.create_task(one.reader.readline()) for one in (held, late)],
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert [b" 503 " in task.result() for task in done] == [True]
            for task in pending:
                task.cancel()
            pod = question(pod_with())
            assert (await (await at.connect()).ask("/mutate/pods", pod))[0] == 200, "an ordinary review has room"

    asyncio.run(body())


def test_who_has_spent_its_share_waits_and_another_caller_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server is answered while a pod floods the port."""
    monkeypatch.setattr(loop_share, "BURST_S", 1e-9)
    monkeypatch.setattr(loop_share, "SHARE", 1e-12)

    async def body() -> None:
        pod = question(pod_with())
        async with asyncio.timeout(20), serving(Held(fresh())) as at:
            flooding = await at.connect()
            assert (await flooding.ask("/mutate/pods", pod))[0] == 200
            more = asyncio.create_task(flooding.ask("/mutate/pods", pod))
            other = await at.connect(local="127.0.0.2")
            assert (await other.ask("/mutate/pods", pod))[0] == 200
            assert not more.done()
            more.cancel()

    asyncio.run(body())


@pytest.mark.parametrize(
    "strange",
    [
        {"spec": {"containers": 5}}, {"spec": {"containers": [5, None, []]}}, {"spec": []}, {"metadata": {"annotations": []}},
        {"metadata": {"annotations": {"knative-sponge.dev/slo": 5}}},
        {"metadata": {"annotations": {"knative-sponge.dev/slo": {}}}},
        {"metadata": {"labels": 7, "annotations": {"knative-sponge.dev/slo": "1s"}}},
        {"spec": {"containers": [{"name": "queue-proxy", "env": 3}, {"ports": [{"name": "user-port"}]}]}},
        {"spec": {"containers": [
            {"name": "queue-proxy"}, {"ports": [{"name": "user-port"}], "resources": {"requests": {"cpu": []}}},
        ]}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/mutate/pods", "/mutate/services", "/validate/services"])
def test_an_object_of_any_shape_is_answered_and_the_next_one_too(
    strange: dict[str, Any], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with asyncio.timeout(20), serving(Held(fresh())) as at:
            connection = await at.connect()
            pod = pod_with()
            for _ in range(3):
                status, _ = await connection.ask(path, question({**pod, **strange}))
                assert status in (200, 500)
            assert (await connection.ask("/mutate/pods", question(pod)))[0] == 200

    asyncio.run(body())
    assert caplog.text.count("Traceback") <= 1


def test_who_leaves_in_the_middle_of_a_body_is_no_mistake_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with serving(Held(fresh())) as at:
            one = await at.connect()
            one.writer.write(b"POST /mutate/pods HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
            await (await at.connect()).ask("/mutate/pods", b"{}")  # what was written before it has arrived
            one.writer.transport.abort()
            while at.count("mutate/pods", "gone") != 1:
                await asyncio.sleep(0.01)
                assert at.count("mutate/pods", "error") is None

    asyncio.run(body())
    assert "Traceback" not in caplog.text
