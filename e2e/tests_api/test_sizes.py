"""Sizes follow demand on a bad way to a real API server: late perhaps, but never wrong, and without a storm of patches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from e2e.api.client import Client
from e2e.api.faulty import Call, Fault
from e2e.api.node import Node, a_node
from e2e.api.replica import Replica, replica
from e2e.api.server import Server
from tests.controller.revision_kit import until

Body = Callable[[Node, Replica], Awaitable[None]]
_LONGEST_S = 25.0


def on_a_node(server: Server, body: Body, *, pods: tuple[str, ...] = ("a",), cores: float = 4.0) -> None:
    """Run a test where each pod has half a core, and judge all that was asked for in it."""

    async def whole() -> None:
        async with (
            asyncio.timeout(_LONGEST_S),
            Client(server.url, server.trust(admin=True)) as admin,
            a_node(admin, cores) as node,
        ):
            for name in pods:
                await node.add(name, 0.5)
            async with replica(server, node) as one:
                await until(lambda: all(proxy.listeners for proxy in node.proxies.values()))
                await body(node, one)
            for name in pods:
                assert set(one.sizes(name)) <= node.asked[name]
                assert one.shortest_wait_s(name) > 0.99

    asyncio.run(whole())


def is_resize(call: Call) -> bool:
    return call.path.endswith("/resize")


def is_watch_of_pods(call: Call) -> bool:
    return call.watches and call.path == "/api/v1/pods"


FAULTS = {
    "a conflict": (Fault(409, "Conflict"),),
    "too many requests": (Fault(429, "TooManyRequests", headers={"Retry-After": "1"}),),
    "errors of the server": (Fault(500, "InternalError"), Fault(503, "ServiceUnavailable")),
    "a server that has just started": (
        Fault(403, "Forbidden", 'User "u" cannot patch resource "pods/resize" in API group ""'),
    ),
    "an answer that breaks off": (Fault(cut=True),),
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_a_size_comes_through_when_its_patch_meets(server: Server, faults: tuple[Fault, ...]) -> None:
    async def body(node: Node, one: Replica) -> None:
        with one.way.fault(*faults, to=is_resize) as hit:
            node.want("a", 1.5)
            await until(lambda: node.in_force("a") == 1.5)
            await until(lambda: ("actuated", 1.5) in node.proxies["a"].told)
        assert len(hit) == len(faults)
        assert one.sizes("a") == [1.5] * (len(faults) + 1)

    on_a_node(server, body)


def test_a_size_comes_through_when_every_answer_takes_two_seconds(server: Server) -> None:
    async def body(node: Node, one: Replica) -> None:
        with one.way.fault(Fault(delay_s=2.0), to=lambda _call: True, lasting=True):
            node.want("a", 1.5)
            await until(lambda: node.in_force("a") == 1.5)
            await until(lambda: ("actuated", 1.5) in node.proxies["a"].told)
        assert one.sizes("a") == [1.5]
        assert one.leads

    on_a_node(server, body)


def test_a_pod_that_goes_while_the_watches_are_cut_is_forgotten(server: Server) -> None:
    async def body(node: Node, one: Replica) -> None:
        with one.way.fault(Fault(503, "ServiceUnavailable"), to=is_watch_of_pods, lasting=True):
            assert one.way.cut_watches() > 0
            await node.remove("a")
        # What "a" had is free only once it is known to be gone.
        node.want("b", 1.0)
        await until(lambda: node.in_force("b") == 1.0)

    on_a_node(server, body, pods=("a", "b"), cores=1.05)


def test_when_history_is_gone_everything_is_listed_again(server: Server) -> None:
    async def body(node: Node, one: Replica) -> None:
        with one.way.fault(Fault(410, "Expired"), to=is_watch_of_pods, lasting=True) as hit:
            assert one.way.cut_watches() > 0
            await until(lambda: hit)
            await node.remove("a")
            node.want("b", 1.0)
            await until(lambda: node.in_force("b") == 1.0)

    on_a_node(server, body, pods=("a", "b"), cores=1.05)
