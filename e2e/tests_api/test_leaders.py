"""Two replicas while the API server is away, from the leader or from both: one leads, and no size is undone or asked twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from e2e.api.client import Client
from e2e.api.node import Node, a_node
from e2e.api.replica import Replica, replica
from e2e.api.server import Server
from tests.controller.revision_kit import until

Body = Callable[[Node, Replica, Replica], Awaitable[None]]
_LONGEST_S = 60.0


def with_two(server: Server, body: Body) -> None:
    """Run a test with the leader, which has sized pod "a" to one core of four, and another replica."""

    async def whole() -> None:
        async with (
            asyncio.timeout(_LONGEST_S),
            Client(server.url, server.trust(admin=True)) as admin,
            a_node(admin, 4.0) as node,
        ):
            await node.add("a", 0.5)
            async with replica(server, node, "one") as one, replica(server, node, "two") as two:
                await until(lambda: one.leads or two.leads)
                leader, other = (one, two) if one.leads else (two, one)
                node.want("a", 1.0)
                await until(lambda: node.in_force("a") == 1.0)
                await body(node, leader, other)
            for each in (one, two):
                assert set(each.sizes("a")) <= node.asked["a"]
                assert each.shortest_wait_s("a") > 0.99

    asyncio.run(whole())


def test_a_leader_in_a_black_hole_is_followed_and_writes_nothing_more(
    server: Server, record_property: Callable[[str, object], None]
) -> None:
    async def body(node: Node, old: Replica, new: Replica) -> None:
        now = asyncio.get_running_loop().time
        with old.way.black_hole():
            cut_s = now()
            node.want("a", 1.5)
            await until(lambda: not old.leads)
            assert not new.leads
            written = len(old.way.writes())
            await until(lambda: new.leads)
            record_property("seconds until the other led", round(now() - cut_s, 1))
            await until(lambda: node.in_force("a") == 1.5)
            node.want("a", 0.7)
        looks = len(old.way.calls)
        await until(lambda: node.in_force("a") == 0.7)
        await until(lambda: len(old.way.calls) > looks)
        assert (old.leads, new.leads) == (False, True)
        assert len(old.way.writes()) == written
        assert new.sizes("a") == [1.5, 0.7]

    with_two(server, body)


def test_after_an_outage_one_leads_and_sizes_follow_again(server: Server) -> None:
    async def body(node: Node, leader: Replica, other: Replica) -> None:
        server.kill()
        try:
            node.want("a", 1.5)
            await until(lambda: 1.5 in leader.sizes("a"))
        finally:
            await asyncio.to_thread(server.start)
        await until(lambda: node.in_force("a") == 1.5)
        assert leader.leads != other.leads

    with_two(server, body)
