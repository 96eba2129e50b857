"""Events through a real Broker and Trigger: by deadline, in batches, answered so that eventing does the right thing."""

from __future__ import annotations

import base64
import http.client
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from e2e.cluster.places import REPOSITORY
from e2e.harness.client import Client, together
from e2e.harness.kube import Kube, Object, condition
from e2e.harness.services import SLO, Services
from e2e.tests.conftest import Measure

_EXAMPLE = REPOSITORY / "examples" / "cloudevents"
_TYPE = "com.example.measurement"
_INFER = "/v2/models/affine/infer"


@dataclass(frozen=True, slots=True)
class Broker:
    """Where events are sent: an address on this machine, and the broker's path."""

    port: int
    path: str

    def send(self, event: dict[str, str], data: Any, *, structured: bool = False) -> None:
        """Send one event; 202 is the broker's word for it."""
        if structured:
            headers = {"Content-Type": "application/cloudevents+json"}
            body = json.dumps({**event, "datacontenttype": "application/json", "data": data})
        else:
            headers = {"Content-Type": "application/json", **{f"ce-{name}": value for name, value in event.items()}}
            body = json.dumps(data)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            assert answer.status == 202, answer.read()
        finally:
            connection.close()


@pytest.fixture
def broker(kube: Kube, namespace: str) -> Iterator[Broker]:
    with kube.forwarded("svc/broker-ingress", 80, "knative-eventing") as port:
        yield Broker(port, f"/{namespace}/default")


def _event(number: int, *, expires_s: float | None = None, kind: str = _TYPE) -> dict[str, str]:
    now = datetime.now(UTC)
    event = {"specversion": "1.0", "id": f"{number}-{uuid.uuid4()}", "source": "/test", "type": kind}
    event["time"] = now.isoformat()
    if expires_s is not None:
        event["expirytime"] = (now + timedelta(seconds=expires_s)).isoformat()
    return event


def _tensor(number: int, *, poison: bool = False) -> dict[str, Any]:
    data = [-1.0 if poison else float(number), 2.0, 3.0]
    return {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 3], "data": data}]}


def _apply_example(kube: Kube, namespace: str, change: dict[str, Any] | None = None) -> None:
    documents = [
        one for file in ("service.yaml", "eventing.yaml") for one in yaml.safe_load_all((_EXAMPLE / file).read_text())
    ]
    for one in documents:
        one["metadata"]["namespace"] = namespace
        if one["metadata"]["name"] == "affine" and change:
            template = one["spec"]["template"]
            template["metadata"]["annotations"].update(change.get("annotations", {}))
            template["spec"]["containers"][0]["env"] = change.get("env", [])
    kube.apply(documents)
    for kind in ("ksvc", "broker", "trigger"):
        kube.until(
            f"every {kind} to be ready",
            lambda kind=kind: all(condition(one, "Ready") == "True" for one in kube.find(kind, namespace)),  # type: ignore[misc]
            timeout_s=90,
        )


def _received(client: Client, kube: Kube, count: int) -> list[dict[str, Any]]:
    """What a sink got, once it has got so many."""
    kube.until(f"{count} events at {client.host}", lambda: len(client.get("/received").json()) >= count, timeout_s=90)
    found: list[dict[str, Any]] = client.get("/received").json()
    return found


def test_every_event_is_handled_or_a_dead_letter(
    services: Services, kube: Kube, broker: Broker, measure: Measure
) -> None:
    # A long SLO: how fast this machine is must not decide which events are late.
    change = {"annotations": {SLO: "60s"}, "env": [{"name": "WORK_MS_PER_CALL", "value": "50"}]}
    _apply_example(kube, services.namespace, change)
    good, late, poison = range(60), range(60, 70), range(70, 80)
    events = {
        number: _event(number, expires_s=-1 if number in late else 60 if number % 3 else None)
        for number in (*good, *late, *poison)
    }
    together(
        [
            lambda n=number, e=event: broker.send(e, _tensor(n, poison=n in poison), structured=n % 2 == 0)  # type: ignore[misc]
            for number, event in events.items()
        ]
    )
    results = _received(services.service("results").client, kube, len(good))
    dead = _received(services.service("dead-letters").client, kube, len(late) + len(poison))

    handled = {one["attributes"]["causationid"]: json.loads(one["body"]) for one in results}
    assert set(handled) == {events[number]["id"] for number in good}
    for number in good:
        assert handled[events[number]["id"]]["outputs"][0]["data"] == [2.0 * number + 1, 5.0, 7.0]
    for one in results:
        assert one["attributes"]["type"] == f"{_TYPE}.reply"

    codes = {one["attributes"]["id"]: one["attributes"]["knativeerrorcode"] for one in dead}
    assert codes == {
        **{events[number]["id"]: "422" for number in late},
        **{events[number]["id"]: "400" for number in poison},
    }
    told = [json.loads(base64.b64decode(one["attributes"]["knativeerrordata"])) for one in dead
            if one["attributes"]["knativeerrorcode"] == "422"]  # fmt: skip
    assert {one["reason"] for one in told} == {"expired"}
    assert len(results) + len(dead) == len(events)

    stats = services.service("affine").client.get("/stats").json()
    assert stats["largest_batch"] > 1
    measure("events sent", len(events))
    measure("handled", len(results))
    measure("dead letters", len(dead))
    measure("events in the largest batch", stats["largest_batch"])


def _waiting(kube: Kube, pod: Object) -> int:
    """Requests in a proxy's queue."""
    waiting: int = json.loads(kube.pod_get(pod, 8022, "/sponge/v1/state"))["queue"]["requests"]
    return waiting


def test_events_are_served_by_deadline(services: Services, kube: Kube, broker: Broker, measure: Measure) -> None:
    _apply_example(kube, services.namespace, {"annotations": {"knative-sponge.dev/max-batch": "1", SLO: "60s"}})
    model = services.service("affine").client
    (pod,) = kube.pods("affine", services.namespace)
    # The model is held until every event waits behind the first. The later an event is sent, the sooner its deadline.
    assert model.request("POST", "/hold").status == 200
    events = [_event(number, expires_s=60 - number) for number in range(12)]
    with ThreadPoolExecutor(len(events)) as pool:
        # The broker answers a sender when the event was delivered, so nobody is waited for before the release.
        sending = [pool.submit(broker.send, event, _tensor(number)) for number, event in enumerate(events)]
        kube.until("11 events to wait", lambda: _waiting(kube, pod) == 11)
        assert model.request("POST", "/release").status == 200
        for one in sending:
            one.result()
    results = _received(services.service("results").client, kube, len(events))
    results.sort(key=lambda one: datetime.fromisoformat(one["attributes"]["time"]))
    served = [int(one["attributes"]["causationid"].partition("-")[0]) for one in results]
    measure("order of service (deadlines fall with the number)", served)
    # Which was first to arrive is chance; of the rest the sooner deadline always came first.
    rest = served[1:]
    assert rest == sorted(rest, reverse=True)


def test_a_failing_server_gets_its_events_again(
    services: Services, kube: Kube, broker: Broker, measure: Measure
) -> None:
    annotations = {SLO: "30s", "knative-sponge.dev/protocol": "none", "autoscaling.knative.dev/min-scale": "1"}
    small = ["--request", "cpu=50m"]
    services.create("flaky", "events", annotations=annotations, env={"FAIL_FIRST": "2"}, more=small)
    services.create("dead-letters", "events", annotations={"autoscaling.knative.dev/min-scale": "1"}, more=small)
    sink = {"apiVersion": "serving.knative.dev/v1", "kind": "Service"}
    delivery = {"retry": 4, "backoffPolicy": "exponential", "backoffDelay": "PT0.1S",
                "deadLetterSink": {"ref": {**sink, "name": "dead-letters"}}}  # fmt: skip
    kube.apply(
        [
            {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker",
             "metadata": {"name": "default", "namespace": services.namespace}},
            {"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger",
             "metadata": {"name": "all", "namespace": services.namespace},
             "spec": {"broker": "default", "delivery": delivery, "subscriber": {"ref": {**sink, "name": "flaky"}}}},
        ]
    )  # fmt: skip
    kube.until("the trigger", lambda: condition(kube.get("trigger", "all", services.namespace), "Ready") == "True")
    for number in range(20):
        broker.send(_event(number), {"n": number}, structured=number % 2 == 0)
    attempts = _received(services.service("flaky").client, kube, 60)
    handled = [one for one in attempts if one["status"] == 202]
    assert len(handled) == len({one["attributes"]["id"] for one in handled}) == 20
    assert {one["attempt"] for one in handled} == {3}
    assert services.service("dead-letters").client.get("/received").json() == []
    measure("attempts for 20 events", len(attempts))
