"""Container concurrency: who is refused, who waits, and when a slot comes back (docs/knative-contract.md §1.7, §9 row 9)."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from knative_sponge.proxy.app import data_app
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.upstream.pool import Upstream
from tests.proxy.harness import SETTINGS, answering, model_server, ok, on_loop, proxy, serving, until
from tests.proxy.live import live
from tests.proxy.tunnel_kit import OFFER, switching
from tests.proxy.wire import LOCAL, Wire, client


@dataclass
class Held:
    """A model server that answers when it is told to."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0

    async def script(self, wire: Wire) -> None:
        while True:
            await wire.head()
            self.running += 1
            self.most = max(self.most, self.running)
            await self.go.wait()
            self.running -= 1
            await wire.send(ok())


@on_loop
async def test_beyond_eleven_times_the_concurrency_requests_are_refused_at_once() -> None:
    held = Held()
    breaker = Breaker(1)
    async with contextlib.AsyncExitStack() as stack:
        fake = await stack.enter_async_context(model_server(held.script))
        upstream = Upstream(LOCAL, fake.port)
        stack.callback(upstream.close)
        app = data_app(SETTINGS, upstream, Drain(0.0), breaker=breaker)
        port = await stack.enter_async_context(serving(app))
        clients = [await stack.enter_async_context(client(port)) for _ in range(12)]
        accepted = [asyncio.create_task(one.get()) for one in clients[:11]]
        await until(lambda: breaker.admitted == 11)
        refused = await clients[11].get()
        assert (refused.status, refused.body) == (503, b"pending request queue full\n")
        assert refused.field(b"sponge-reason") == b"queue-full"
        assert refused.field(b"x-content-type-options") == b"nosniff"
        assert refused.field(b"content-type") == b"text/plain; charset=utf-8"
        held.go.set()
        assert [(await reply).status for reply in accepted] == [200] * 11
        assert held.most == 1
        assert (await clients[11].get()).status == 200, "places come back"


@on_loop
async def test_a_turn_is_held_until_the_stream_has_ended() -> None:
    finish = asyncio.Event()

    async def streams(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await finish.wait()
        await wire.send(b"0\r\n\r\n")

    async with (
        model_server(streams) as fake,
        proxy(fake, container_concurrency=1) as port,
        client(port) as first,
        client(port) as second,
    ):
        await first.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await first.head()
        waiting = asyncio.create_task(second.get(b"/2"))
        await _settled()
        assert fake.connections == 1
        finish.set()
        assert (await waiting).status == 200
        assert fake.connections == 2


@on_loop
async def test_a_turn_is_held_until_a_tunnel_has_ended() -> None:
    async with (
        model_server(switching(), answering(ok())) as fake,
        proxy(fake, container_concurrency=1) as port,
        client(port) as first,
        client(port) as second,
    ):
        await first.send(OFFER + b"\r\n")
        assert (await first.head()).startswith(b"HTTP/1.1 101 ")
        waiting = asyncio.create_task(second.get())
        await first.send(b"hello")
        assert await first.exactly(5) == b"hello"
        await _settled()
        assert fake.connections == 1
        first.close()
        assert (await waiting).status == 200


@on_loop
async def test_a_client_that_leaves_frees_its_turn_and_its_place() -> None:
    held = Held()
    async with (
        model_server(held.script) as fake,
        proxy(fake, container_concurrency=1) as port,
        client(port) as first,
        client(port) as second,
    ):
        await first.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(fake.seen) == 1)
        waiting = asyncio.create_task(second.get(b"/2"))
        first.reset()
        await until(lambda: len(fake.seen) == 2)
        held.go.set()
        assert (await waiting).status == 200


@on_loop
async def test_requests_marked_as_the_kubelets_own_do_not_wait() -> None:
    async def script(wire: Wire) -> None:
        head = await wire.head()
        if b" /held " in head:
            await wire.gone()
        await wire.send(ok(b"app"))

    async with (
        model_server(script) as fake,
        proxy(fake, container_concurrency=1) as port,
        client(port) as first,
        client(port) as second,
    ):
        await first.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: bool(fake.seen))
        assert (await second.get(b"/", b"K-Kubelet-Probe: queue")).body == b"app"


@on_loop
async def test_waiting_counts_against_the_timeout() -> None:
    held = Held()
    async with (
        model_server(held.script) as fake,
        proxy(fake, container_concurrency=1, timeout_s=0.2) as port,
        client(port) as first,
        client(port) as second,
    ):
        await first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = await second.get()
        assert (reply.status, reply.body) == (504, b"request timeout")


async def _settled() -> None:
    """Let everything that can happen now happen."""
    for _ in range(20):
        await asyncio.sleep(0.001)


@on_loop
async def test_a_merged_call_takes_one_turn_whatever_it_carries() -> None:
    async with live(container_concurrency=1) as proxy:
        proxy.model.hung = True
        first = asyncio.create_task(proxy.predict("first"))
        await until(lambda: proxy.model.calls == 1)
        others = [asyncio.create_task(proxy.predict(f"i{n}")) for n in range(8)]
        await until(lambda: len(proxy.inference._batcher.queue) == 8)
        proxy.model.hung = False
        first.cancel()
        assert [(await each)[0] for each in others] == [200] * 8
        assert proxy.model.calls == 2, "cc=1 does not switch merging off"


@on_loop
async def test_the_deadline_queue_is_bounded_as_any_request_is() -> None:
    async with live(container_concurrency=1) as proxy:
        proxy.model.hung = True
        tasks = [asyncio.create_task(proxy.predict(f"i{n}")) for n in range(11)]
        breaker = proxy.breaker
        assert breaker is not None
        await until(lambda: breaker.admitted == 11)
        async with proxy.session.post(f"{proxy.url}/v1/models/m:predict", json={"instances": ["x"]}) as answer:
            assert (answer.status, await answer.read()) == (503, b"pending request queue full\n")
            assert answer.headers["sponge-reason"] == "queue-full"
        for task in tasks:
            task.cancel()
        await until(lambda: breaker.admitted == 0)


@on_loop
async def test_passed_through_requests_and_merged_calls_share_the_slots() -> None:
    async with live({"max-inflight": "4"}, container_concurrency=1) as proxy:
        assert proxy.inference._batcher.rules.max_inflight == 1
        proxy.model.hung = True
        call = asyncio.create_task(proxy.predict("a"))
        await until(lambda: proxy.model.calls == 1)
        async with asyncio.TaskGroup() as group:
            post = group.create_task(proxy.session.post(f"{proxy.url}/cpu", json={"x": 1}).__aenter__())
            breaker = proxy.breaker
            assert breaker is not None
            await until(lambda: breaker.admitted == 2)
            await _settled()
            assert proxy.model.hooks == [], "it waits for the merged call"
            call.cancel()
        assert post.result().status == 200
        assert proxy.model.hooks == [{"x": 1}]


@on_loop
async def test_waiting_for_a_slot_is_no_part_of_a_measured_call() -> None:
    async with live(container_concurrency=1) as proxy:
        breaker = proxy.breaker
        assert breaker is not None
        loop = asyncio.get_running_loop()
        async with breaker:
            call = asyncio.create_task(proxy.predict("a"))
            await until(lambda: bool(proxy.inference.endpoint._batches))
            waited_from_s = loop.time()
            await asyncio.sleep(0.3)
            waited_s = loop.time() - waited_from_s
        assert (await call)[0] == 200
        measured_s = proxy.inference.metrics.registry.get_sample_value("sponge_infer_seconds_sum")
        assert measured_s is not None
        assert measured_s < waited_s
