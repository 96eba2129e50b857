"""The same app behind the stock proxy and behind ours: what reaches it and what comes back must not differ."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from e2e.harness.client import Client, Response
from e2e.harness.kube import Kube, container
from e2e.harness.services import SLO, Services
from e2e.tests.conftest import Measure

_MIB = 2**20
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
def pair(services: Services, kube: Kube) -> Iterator[tuple[Client, Client]]:
    """Ways to the (stock, our) proxy of a pod each, past ingress and activator: those are not what is compared."""
    small = ["--request", "cpu=50m", "--scale-min", "1"]
    services.create("stock", "echo", more=small)
    services.create("ours", "echo", annotations={SLO: "5s"}, more=small)
    with contextlib.ExitStack() as ways:
        clients = []
        for name in ("stock", "ours"):
            (pod,) = kube.pods(name, services.namespace)
            assert ("knative-sponge" in container(pod, "queue-proxy")["image"]) == (name == "ours")
            way = kube.forwarded(f"pod/{pod['metadata']['name']}", 8012, services.namespace)
            clients.append(Client(f"http://127.0.0.1:{ways.enter_context(way)}", "echo.example.test"))
        yield clients[0], clients[1]


def _comparable(answer: Response) -> dict[str, Any]:
    """Everything but the clock."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return {"status": answer.status, "headers": headers, "body": answer.body}


def test_requests_and_answers_are_the_same_as_through_the_stock_proxy(
    pair: tuple[Client, Client], measure: Measure
) -> None:
    for method, target, headers, body in _REQUESTS:
        stock, ours = [_comparable(client.request(method, target, headers=headers, body=body)) for client in pair]
        assert ours == stock, (method, target)
    measure("requests compared", len(_REQUESTS))


def test_twenty_mebibytes_go_up_and_come_down_unchanged(pair: tuple[Client, Client], measure: Measure) -> None:
    data = random.Random(1).randbytes(20 * _MIB)
    down = []
    for name, client in zip(("stock", "ours"), pair, strict=True):
        up = client.request("POST", "/echo", body=data)
        assert (up.status, up.json()["sha256"]) == (200, hashlib.sha256(data).hexdigest())
        down.append(client.get(f"/big?bytes={20 * _MIB}"))
        assert (down[-1].status, len(down[-1].body)) == (200, 20 * _MIB)
        measure(f"20 MiB up, {name}, s", round(up.seconds, 2))
        measure(f"20 MiB down, {name}, s", round(down[-1].seconds, 2))
    assert down[0].body == down[1].body


def test_server_sent_events_arrive_one_by_one(pair: tuple[Client, Client]) -> None:
    for client in pair:
        connection = client.connection()
        connection.request("GET", "/sse?n=5&gap=200ms", headers={"Host": client.host})
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


def test_a_websocket_is_carried_both_ways(pair: tuple[Client, Client]) -> None:
    async def talk(client: Client) -> list[Any]:
        address = client.connection()
        url = f"ws://{address.host}:{address.port}/ws"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, headers={"Host": client.host}) as socket,
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

    stock, ours = [asyncio.run(talk(client)) for client in pair]
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
