"""Knative's probes and what they are told, word for word (docs/knative-contract.md §1.5, §9, §10)."""

from __future__ import annotations

import asyncio

import pytest

from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.settings import Probe
from tests.proxy.harness import answering, closed_port, model_server, ok, on_loop, proxy
from tests.proxy.wire import LOCAL, Reply, client

TEXT = b"text/plain; charset=utf-8"
KUBELET = (b"User-Agent: kube-probe/1.34", b"K-Network-Probe: queue")


async def told(*fields: bytes, drain: Drain | None = None, ready: bool = True, target: bytes = b"/") -> Reply:
    """The answer to one GET with these fields; the application says `app`."""
    async with model_server(answering(ok(b"app"))) as fake:
        probe = Probe(LOCAL, fake.port if ready else closed_port(), period_s=1.0)
        async with proxy(fake, drain=drain, probes=(probe,)) as port, client(port) as one:
            return await one.get(target, *fields)


def fields_and_body(reply: Reply) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return reply.status, reply.fields, reply.body


@pytest.mark.parametrize("agent", [b"kube-probe/1.34", b"Knative-Activator-Probe", b"Knative-Autoscaling-Probe"])
@on_loop
async def test_a_health_check_of_a_ready_pod(agent: bytes) -> None:
    reply = await told(b"User-Agent: " + agent, b"K-Network-Probe: queue", target=b"/healthz")
    assert fields_and_body(reply) == (200, [(b"content-type", TEXT), (b"content-length", b"5")], b"queue")


@on_loop
async def test_a_health_check_of_a_pod_that_is_not_ready() -> None:
    assert fields_and_body(await told(*KUBELET, ready=False)) == (503, [(b"content-length", b"0")], b"")


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ((b"User-Agent: kube-probe/1.34",), b""),
        ((b"User-Agent: Knative-Autoscaling-Probe", b"K-Network-Probe: activator"), b"activator"),
        ((b"User-Agent: kube-probe/", b"K-Network-Probe: probe"), b"probe"),
    ],
)
@on_loop
async def test_a_health_check_for_somebody_else(fields: tuple[bytes, ...], value: bytes) -> None:
    reply = await told(*fields)
    assert (reply.status, reply.body) == (400, b"unexpected probe header value: " + value + b"\n")
    assert (reply.field(b"content-type"), reply.field(b"x-content-type-options")) == (TEXT, b"nosniff")


@on_loop
async def test_a_route_probe_gets_its_hash_back_ready_or_not() -> None:
    for ready in (True, False):
        reply = await told(b"K-Network-Probe: probe", b"K-Network-Hash: abc", ready=ready)
        assert fields_and_body(reply) == (200, [(b"k-network-hash", b"abc"), (b"content-length", b"0")], b"")


@pytest.mark.parametrize("more", [(), (b"K-Network-Hash:",)])
@on_loop
async def test_a_route_probe_without_a_hash(more: tuple[bytes, ...]) -> None:
    reply = await told(b"K-Network-Probe: probe", *more)
    assert (reply.status, reply.body) == (
        400, b'a probe request must contain a non-empty "K-Network-Hash" header\n',
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        (b"User-Agent: curl", b"K-Network-Probe: queue"),
        (b"User-Agent: my kube-probe/1",),
        (b"K-Kubelet-Probe: kubelet",),
        (b"K-Proxy-Request: activator",),
    ],
)
@on_loop
async def test_an_ordinary_request_reaches_the_application(fields: tuple[bytes, ...]) -> None:
    assert (await told(*fields)).body == b"app"


@pytest.mark.parametrize("fields", [KUBELET, (b"K-Network-Probe: probe", b"K-Network-Hash: abc")])
@on_loop
async def test_probes_are_told_that_the_pod_is_leaving(fields: tuple[bytes, ...]) -> None:
    drain = Drain(30.0)
    drain.draining = True
    reply = await told(*fields, drain=drain)
    assert (reply.status, reply.body) == (503, b"shutting down\n")
    assert (await told(drain=drain)).body == b"app", "ordinary requests are still served"


@on_loop
async def test_only_ordinary_requests_hold_up_the_leaving() -> None:
    touched: list[bool] = []

    class Watched(Drain):
        def touch(self) -> None:
            touched.append(True)

    drain = Watched(30.0)
    drain.draining = True
    await told(*KUBELET, drain=drain)
    assert touched == []
    await told(drain=drain)
    assert touched == [True]


@on_loop
async def test_requests_behind_the_end_are_refused_with_the_reason() -> None:
    drain = Drain(0.0)
    await drain.terminate()
    reply = await told(drain=drain)
    assert reply.status == 503
    assert (reply.field(b"sponge-reason"), reply.field(b"connection")) == (b"draining", b"close")


@on_loop
async def test_options_of_the_server_itself_are_answered_here() -> None:
    async with model_server(answering(ok(b"app"))) as fake, proxy(fake) as port, client(port) as one:
        reply = await one.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1")
        assert fields_and_body(reply) == (200, [(b"content-length", b"0")], b"")
        assert fake.connections == 0


@on_loop
async def test_a_probe_is_answered_while_requests_hang() -> None:
    async def hangs(wire: object) -> None:
        await asyncio.Event().wait()

    async with model_server(hangs) as fake, proxy(fake) as port:
        waiting = [await asyncio.open_connection(LOCAL, port) for _ in range(20)]
        for _, writer in waiting:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with client(port) as one:
            assert (await one.get(b"/", *KUBELET)).body == b"queue"
        for _, writer in waiting:
            writer.close()
