"""A broker delivers events through a whole proxy on real ports: every one is handled or dead-lettered, none is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import aiohttp
import pytest

from knative_sponge.errors import UNDELIVERABLE
from tests.proxy.harness import on_loop, until
from tests.proxy.live import Live, live
from tests.proxy.queue.broker import Broker, Delivery
from tests.proxy.queue.event_kit import in_s

JSON = {"content-type": "application/json"}
STRUCTURED = {"content-type": "application/cloudevents+json"}


def frame(number: int | str, **more: str) -> tuple[Mapping[str, str], bytes]:
    """An event in binary mode that asks for the prediction of one instance."""
    attributes = {"specversion": "1.0", "id": f"e-{number}", "source": "/camera", "type": "frame", **more}
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    return {**headers, **JSON}, json.dumps({"instances": [f"{number}"]}).encode()


def broker(proxy: Live, **delivery: float) -> Broker:
    """A Trigger whose subscriber is the service with the path of the model."""
    made = Broker(proxy.session, f"{proxy.url}/v1/models/m:predict")
    for name, value in delivery.items():
        setattr(made, name, value)
    return made


@on_loop
async def test_every_event_is_handled_or_dead_lettered_while_the_model_server_dies_and_comes_back() -> None:
    async with live({"slo": "15s"}) as proxy:
        eventing = broker(proxy)
        sent: dict[str, tuple[Mapping[str, str], bytes]] = {}
        for number in range(300):
            match number % 10:
                case 0:
                    sent[f"expired-{number}"] = frame(f"expired-{number}", expirytime=in_s(-1))
                case 1:
                    sent[f"malformed-{number}"] = frame(f"malformed-{number}", type="")
                case _:
                    sent[f"good-{number}"] = frame(f"good-{number}", expirytime=in_s(15))
        proxy.model.hung = True
        tasks = {name: asyncio.create_task(eventing.deliver(*event)) for name, event in sent.items()}
        await until(lambda: proxy.model.calls > 0)
        await proxy.model.kill()
        proxy.model.hung = False
        await until(lambda: any(task.done() for name, task in tasks.items() if name.startswith("expired")))
        await proxy.model.start()
        deliveries = {name: await task for name, task in tasks.items()}
    handled = {name for name, delivery in deliveries.items() if delivery.handled}
    dead = {name for name, delivery in deliveries.items() if delivery.dead}
    assert handled | dead == set(sent)
    assert not handled & dead
    assert handled == {name for name in sent if name.startswith("good")}
    for name, delivery in deliveries.items():
        causes = [reply.get_attributes()["causationid"] for reply in delivery.replies]
        assert causes == ([f"e-{name}"] if name in handled else []), "answered once, and by its own reply"
        if name in dead:
            assert delivery.attempts == [UNDELIVERABLE if name.startswith("expired") else 400], "at once"
    assert any(len(delivery.attempts) > 1 for delivery in deliveries.values()), "some had to be sent again"


@on_loop
async def test_events_that_the_model_server_never_answers_are_dead_lettered_with_the_reason() -> None:
    async with live({"slo": "300ms"}) as proxy:
        proxy.model.hung = True
        eventing = broker(proxy)
        deliveries = await asyncio.gather(*(eventing.deliver(*frame(number)) for number in range(5)))
    for delivery in deliveries:
        assert delivery.dead
        assert delivery.attempts == [UNDELIVERABLE]
        assert json.loads(delivery.error)["reason"] in ("timeout", "hopeless", "expired")


@on_loop
async def test_an_event_outlives_a_model_server_that_is_away_for_a_while() -> None:
    async with live({"slo": "15s"}) as proxy:
        await proxy.model.kill()
        delivery: asyncio.Task[Delivery] = asyncio.create_task(broker(proxy).deliver(*frame("waits")))
        while (await refused(proxy)) < 2:
            await asyncio.sleep(0.01)
        await proxy.model.start()
        found = await delivery
    assert found.handled
    assert set(found.attempts[:-1]) == {502}
    assert len(found.replies) == 1


async def refused(proxy: Live) -> float:
    """How many attempts found no model server, as the metrics have it."""
    async with proxy.session.get(f"{proxy.metrics}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith('sponge_requests_total{outcome="upstream-refused"}'):
                return float(line.split()[-1])
    return 0.0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(JSON, b'{"specversion":"1.0"}', id="no event at all"),
        pytest.param(STRUCTURED, b"{", id="no JSON"),
        pytest.param(
            STRUCTURED, b'{"specversion":"1.0","id":"1","type":"t","data":{"instances":["x"]}}', id="no source"
        ),
    ],
)
@on_loop
async def test_a_malformed_event_is_dead_lettered_after_one_attempt(kind: dict[str, str], body: bytes) -> None:
    headers = kind if kind is STRUCTURED else {**kind, "ce-specversion": "1.0", "ce-id": "1"}
    async with live() as proxy:
        delivery = await broker(proxy).deliver(headers, body)
        assert delivery.dead
        assert delivery.attempts == [400]
        assert proxy.model.calls == 0


@on_loop
async def test_structured_delivery_gets_its_reply_in_binary_mode() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"instances": ["x"]}}
    async with live() as proxy:
        delivery = await broker(proxy).deliver(STRUCTURED, json.dumps(event).encode())
    assert delivery.handled
    (reply,) = delivery.replies
    assert reply.get_type() == "t.reply"
    assert reply.get_source() == "/apis/serving.knative.dev/v1/namespaces/ns/configurations/c"
    assert reply.get_data() == {"predictions": [{"of": "x"}]}


@on_loop
async def test_an_event_on_a_path_of_no_protocol_passes_through_untouched() -> None:
    async with live() as proxy:
        headers = {"ce-specversion": "1.0", "ce-type": "", **JSON}
        async with proxy.session.post(f"{proxy.url}/cpu", data=b'{"x":1}', headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        assert proxy.model.hooks == [{"x": 1}]


@on_loop
async def test_an_event_of_which_only_half_arrives_is_never_handled() -> None:
    async with live() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.servers.data.port)
        headers, body = frame("half")
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n{fields}\r\n"
        writer.write(head.encode() + body[:5])
        await writer.drain()
        writer.close()
        assert await reader.read() == b""
        async with aiohttp.ClientSession() as session:
            delivery = await Broker(session, f"{proxy.url}/v1/models/m:predict").deliver(headers, body)
        assert delivery.handled
        assert proxy.model.seen["half"] == 1
