"""The same app behind the stock proxy and behind ours: what reaches it and what comes back must not differ."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from typing import Any

import aiohttp
import pytest

from e2e.harness.client import Response
from e2e.harness.kube import Kube, container
from e2e.harness.services import SLO, Service, Services
from e2e.tests.conftest import Measure

_MIB = 2**20
# Serve mode for both: the activator, which the stock class puts in between while it has room, is not what is compared.
_DIRECT = {"autoscaling.knative.dev/target-burst-capacity": "0"}
_REQUESTS: list[tuple[str, str, dict[str, str], bytes | None]] = [
    ("GET", "/echo", {}, None),
    ("GET", "/echo?x=%20&y=a+b&z", {"Accept-Encoding": "gzip", "X-Empty": ""}, None),
    ("GET", "/echo/a%2Fb//c;d=[]", {}, None),
    ("POST", "/echo", {"Content-Type": "text/plain"}, b"hello"),
    ("POST", "/echo", {"Content-Type": "application/json"}, json.dumps({"a": 1}).encode()),
    ("PUT", "/echo", {"X-Forwarded-Proto": "https", "Cookie": "a=b; c=d"}, b"\x00\xff" * 1000),
    ("DELETE", "/echo", {}, None),
    ("OPTIONS", "/echo", {"Origin": "http://a.example"}, None),
    ("PATCH", "/echo", {"User-Agent": ""}, b"x"),
    ("HEAD", "/big?bytes=100", {}, None),
    ("GET", "/status?code=204", {}, None),
    ("GET", "/status?code=304", {}, None),
    ("GET", "/status?code=418", {}, None),
    ("GET", "/status?code=503", {}, None),
    ("GET", "/big?bytes=70000", {"Range": "bytes=0-1"}, None),
    ("GET", "/nothing-here", {"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, None),
]


@pytest.fixture
def pair(services: Services, kube: Kube) -> tuple[Service, Service]:
    """(stock, ours), neither with the activator in its way."""
    small = ["--request", "cpu=50m", "--scale-min", "1"]
    stock = services.create("stock", "echo", annotations=_DIRECT, more=small)
    ours = services.create("ours", "echo", annotations={SLO: "5s"}, more=small)
    for service in (stock, ours):
        kube.until(
            "the activator to be out of the way",
            lambda service=service: "activator" not in service.client.get("/echo").body.decode(),  # type: ignore[misc]
        )
    return stock, ours


def _comparable(service: Service, answer: Response) -> dict[str, Any]:
    """What may not differ: everything but the Service's own name and the clock."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    text = answer.body.decode("latin-1").replace(service.client.host, "HOST")
    if "content-length" in headers and text.startswith("{"):
        seen = json.loads(text)
        seen["headers"] = [pair for pair in seen["headers"] if pair[0] not in ("X-Forwarded-Server", "X-Real-Ip")]
        text, headers["content-length"] = json.dumps(seen), "of the echo"
    return {"status": answer.status, "headers": headers, "body": text}


def test_requests_and_answers_are_the_same_as_through_the_stock_proxy(
    pair: tuple[Service, Service], measure: Measure
) -> None:
    for method, target, headers, body in _REQUESTS:
        stock, ours = [
            _comparable(service, service.client.request(method, target, headers=headers, body=body)) for service in pair
        ]
        assert ours == stock, (method, target)
    measure("requests compared", len(_REQUESTS))


def test_twenty_mebibytes_go_up_and_come_down_unchanged(pair: tuple[Service, Service], measure: Measure) -> None:
    data = random.Random(1).randbytes(20 * _MIB)
    down = []
    for name, service in zip(("stock", "ours"), pair, strict=True):
        up = service.client.request("POST", "/echo", body=data)
        assert (up.status, up.json()["sha256"]) == (200, hashlib.sha256(data).hexdigest())
        down.append(service.client.get(f"/big?bytes={20 * _MIB}"))
        assert (down[-1].status, len(down[-1].body)) == (200, 20 * _MIB)
        measure(f"20 MiB up, {name}, s", round(up.seconds, 2))
        measure(f"20 MiB down, {name}, s", round(down[-1].seconds, 2))
    assert down[0].body == down[1].body


def test_server_sent_events_arrive_one_by_one(pair: tuple[Service, Service]) -> None:
    for service in pair:
        connection = service.client.connection()
        connection.request("GET", "/sse?n=5&gap=200ms", headers={"Host": service.client.host})
        answer = connection.getresponse()
        assert answer.getheader("content-type") == "text/event-stream"
        times, text = [], b""
        while line := answer.readline():
            text += line
            if line.startswith(b"data:"):
                times.append(time.monotonic())
        connection.close()
        assert len(times) == 5, text
        # Had they been held back, they would have come together.
        assert times[-1] - times[0] > 4 * 0.2 * 0.5


def test_a_websocket_is_carried_both_ways(pair: tuple[Service, Service]) -> None:
    async def talk(service: Service) -> list[Any]:
        address = service.client.connection()
        url = f"ws://{address.host}:{address.port}/ws"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, headers={"Host": service.client.host}) as socket,
        ):
            heard: list[Any] = []
            for message in ("one", "ü" * 2000):
                await socket.send_str(message)
                heard.append((await socket.receive()).data)
            await socket.send_bytes(b"\x00\xff" * 40_000)
            heard.append((await socket.receive()).data)
            await socket.ping(b"here?")
            await socket.close(code=1000)
            return [*heard, socket.close_code]

    stock, ours = [asyncio.run(talk(service)) for service in pair]
    assert ours == stock
    assert ours == ["one", "ü" * 2000, b"\x00\xff" * 40_000, 1000]


def test_an_http2_service_keeps_the_stock_proxy_and_works(services: Services, kube: Kube) -> None:
    service = services.create(
        "two", "echo", annotations={SLO: "5s"}, more=["--port", "h2c:8080", "--request", "cpu=50m"]
    )
    answer = service.client.get("/echo")
    assert (answer.status, answer.json()["protocol"]) == (200, "HTTP/2.0")
    (pod,) = kube.pods("two", services.namespace)
    assert "knative-sponge" not in container(pod, "queue-proxy")["image"]
    effective = json.loads(pod["metadata"]["annotations"]["knative-sponge.dev/effective"])
    assert effective["proxy"] == "stock"
    assert "h2c" in effective["why"]
    revision = pod["metadata"]["labels"]["serving.knative.dev/revision"]

    def told() -> bool:
        events = kube.events_of("Revision", revision, services.namespace)
        return any(event["reason"] == "StockProxy" and "h2c" in event["message"] for event in events)

    kube.until("an event that says why", told)
