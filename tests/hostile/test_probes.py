"""Fields that say `probe`, from clients: what they write about themselves earns them nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from knative_sponge.proxy.app import data_app
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.knative.node import Node
from knative_sponge.proxy.knative.observe import ExchangeRecord, Observers
from knative_sponge.proxy.upstream.pool import Upstream
from tests.proxy.harness import SETTINGS, ModelServer, model_server, ok, on_loop, proxy, serving, until
from tests.proxy.wire import LOCAL, Client, Wire, body_of, client

MARK = b"K-Kubelet-Probe: queue"


class Elsewhere(Node):
    """A node that nobody speaks for."""

    def speaks(self, scope: object) -> bool:
        return False


@asynccontextmanager
async def seen_by(
    fake: ModelServer, node: Node, *, hook: str | None = None, concurrency: int = 1
) -> AsyncIterator[tuple[int, list[ExchangeRecord]]]:
    """A proxy that takes its callers for the node's or not; its port, and the exchanges that are over."""
    records: list[ExchangeRecord] = []
    upstream = Upstream(LOCAL, fake.port)
    app = data_app(
        replace(SETTINGS, user_port=fake.port, container_concurrency=concurrency),
        upstream,
        Drain(0.0),
        observers=Observers([records.append]),
        node=node,
        hook=hook,
    )
    async with serving(app) as port:
        try:
            yield port, records
        finally:
            upstream.close()


class Held:
    """A model server that answers nothing before it may; counts what it has at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0

    async def script(self, wire: Wire) -> None:
        while True:
            await body_of(wire, await wire.head())
            self.running += 1
            await self.go.wait()
            await wire.send(ok(b"app"))


async def ask(port: int, request: bytes) -> int:
    async with client(port) as one:
        await one.send(request)
        return (await one.reply(request.split()[0].decode())).status


@pytest.mark.parametrize(
    ("node", "request_"),
    [
        pytest.param(Elsewhere(), b"GET / HTTP/1.1\r\nHost: a\r\n" + MARK + b"\r\n\r\n", id="from elsewhere"),
        pytest.param(
            Node((), Path("/nowhere")),
            b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n" + MARK + b"\r\n\r\n{}",
            id="an inference call",
        ),
        pytest.param(
            Node((), Path("/nowhere")),
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n" + MARK + b"\r\n\r\nhi",
            id="with a body",
        ),
        pytest.param(
            Node((), Path("/nowhere")),
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" + MARK + b"\r\n\r\n",
            id="with another method",
        ),
        pytest.param(
            Node((), Path("/nowhere")),
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n" + MARK + b"\r\n\r\n",
            id="with an offer",
        ),
    ],
)
@on_loop
async def test_a_client_that_calls_itself_the_kubelet_waits_like_others(node: Node, request_: bytes) -> None:
    held = Held()
    async with model_server(held.script) as fake, seen_by(fake, node) as (port, records):
        asking = [asyncio.ensure_future(ask(port, request_)) for _ in range(12)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result() for one in done] == [503], "eleven have a place, and one of them runs"
        await until(lambda: held.running > 0)
        assert held.running == 1
        held.go.set()
        assert sorted(await asyncio.gather(*asking)) == [200] * 11 + [503]
        assert [record.probe for record in records] == [False] * 12


@on_loop
async def test_the_kubelets_own_probe_still_passes_by() -> None:
    held = Held()
    async with model_server(held.script) as fake, seen_by(fake, Node((), Path("/nowhere"))) as (port, records):
        request = b"GET / HTTP/1.1\r\nHost: a\r\n" + MARK + b"\r\n\r\n"
        asking = [asyncio.ensure_future(ask(port, request)) for _ in range(20)]
        await until(lambda: held.running == 20)
        held.go.set()
        assert await asyncio.gather(*asking) == [200] * 20
        assert all(record.probe for record in records)


@pytest.mark.parametrize("field", [MARK, b"K-Network-Probe: queue", b"K-Network-Probe: x", b"K-Network-Hash: x"])
@on_loop
async def test_a_request_that_the_model_server_gets_is_logged_and_counted(field: bytes) -> None:
    held = Held()
    held.go.set()
    async with model_server(held.script) as fake, seen_by(fake, Elsewhere()) as (port, records), client(port) as one:
        assert (await one.get(b"/", field)).body == b"app"
        assert [record.probe for record in records] == [False]


@on_loop
async def test_who_wears_a_probers_name_reaches_no_model_server() -> None:
    async with model_server(Held().script) as fake, proxy(fake) as port, client(port) as one:
        for agent in (b"kube-probe/1", b"Knative-Activator-Probe", b"Knative-Autoscaling-Probe"):
            assert (await one.post(b"{}", b"User-Agent: " + agent, target=b"/v1/models/m:predict")).status == 400
        assert fake.seen == []


@on_loop
async def test_a_refused_probe_is_told_the_beginning_of_what_it_said() -> None:
    async with model_server(Held().script) as fake, proxy(fake) as port, client(port) as one:
        reply = await one.get(b"/", b"User-Agent: kube-probe/1", b"K-Network-Probe: " + b"x" * 50_000)
        assert (reply.status, len(reply.body) < 300) == (400, True)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH"])
@pytest.mark.parametrize("target", [b"/cpu", b"/%63pu", b"//cpu", b"/x/../cpu?a", b"/cpu/", b"/cpu;a", b"/CPU"])
@on_loop
async def test_the_path_that_says_how_many_cores_there_are_is_closed_to_clients(method: bytes, target: bytes) -> None:
    held = Held()
    held.go.set()
    async with model_server(held.script) as fake, seen_by(fake, Elsewhere(), hook="/cpu") as (port, _):
        async with client(port) as one:
            await one.send(method + b" " + target + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            reply = await one.reply(method.decode())
            assert (reply.status, reply.field(b"sponge-reason")) == (403, b"bad-request")
        await passes(port)
        assert [head.split()[:2] for head in fake.seen] == [[b"GET", b"/cpu"], [b"GET", b"/cpux"]]


async def passes(port: int) -> None:
    one: Client
    async with client(port) as one:
        assert [(await one.get(target)).body for target in (b"/cpu", b"/cpux")] == [b"app", b"app"]
