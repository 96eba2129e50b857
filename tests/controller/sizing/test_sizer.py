"""Sizes of pods as a whole: what proxies ask for becomes patches in the right order, over real HTTP in both directions."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from itertools import groupby

import pytest

from knative_sponge.controller.kube.resource import EVENTS, PODS
from knative_sponge.controller.sizing import claims, pod_resizer
from tests.controller.apiserver import Refused
from tests.controller.revision_kit import run, until
from tests.controller.sizing.node_kit import NAMESPACE, Node, a_node, on_a_node, sizing

Body = Callable[[Node], Awaitable[None]]


def test_a_growth_is_patched_and_told_twice() -> None:
    async def body(node: Node) -> None:
        node.proxies["a"].want(1.5, curve=[[0.1, 14.0], [1.5, 0.0]])
        await until(lambda: node.in_force("a") == 1.5)
        await until(lambda: ("actuated", 1.5) in node.told["a"])
        # Once more when it is known how far one resize could reach.
        told = [event for event, _ in groupby(event for event in node.told["a"] if event[0] != "demand")]
        assert told == [("actuated", 0.5), ("patched", 1.5), ("actuated", 1.5)]
        assert node.patches == ["a"]
        kind = next(kind for _, path, kind, _ in node.api.calls if path.endswith("/resize"))
        assert kind == "application/strategic-merge-patch+json"
        await until(lambda: node.api.all(EVENTS))
        (event,) = node.api.all(EVENTS)
        assert (event["reason"], event["regarding"]["kind"]) == ("Resized", "Revision")
        assert "500m → 1500m" in event["note"]

    on_a_node(4.0, {"a": 0.5}, body, max_cores="1.5")


def test_where_cores_are_to_spare_a_pod_grows_further_than_it_needs_and_keeps_it_until_others_need_it() -> None:
    async def body(node: Node) -> None:
        node.proxies["a"].want(0.6)
        await until(lambda: node.in_force("a") == 1.5)
        node.proxies["a"].want(0.5)
        await until(lambda: node.wanted("a") == 0.5)
        assert node.patches == ["a"]
        node.proxies["b"].want(3.2)
        await until(lambda: node.in_force("b") >= 3.2)
        assert 0.6 <= node.cores("a") < 0.8
        assert node.patches.count("a") == 2

    on_a_node(4.0, {"a": 0.5, "b": 0.5}, body)


def test_a_shrink_is_told_before_it_is_patched() -> None:
    async def body(node: Node) -> None:
        seen: list[bool] = []
        node.api.before = lambda method, path: (
            seen.append(("patched", 1.0) in node.told["a"]) if path.endswith("/resize") else None
        )
        node.proxies["a"].want(0.3)
        await until(lambda: node.in_force("a") == 1.0)
        assert seen == [True]

    on_a_node(4.0, {"a": 2.0}, body)


def test_a_pod_that_says_nothing_keeps_its_size_and_its_cores_are_not_given_away() -> None:
    async def body(node: Node) -> None:
        node.proxies["b"].want(3.0, curve=[[0.1, 9.0], [3.0, 0.0]])
        await until(lambda: node.cores("b") > 1.0)
        assert node.cores("a") == 1.0
        assert node.allocated <= 3.0

    async def whole() -> None:
        async with a_node(3.0) as node:
            await node.add("a", 1.0, ip="127.0.0.1")
            await node.add("b", 1.0, ip="127.0.0.2")
            await node.proxies["a"].close()
            async with sizing(node):
                await until(lambda: node.proxies["b"].listeners)
                await body(node)

    run(whole())


def test_on_a_full_node_shrinks_go_before_the_growths_that_need_them() -> None:
    async def body(node: Node) -> None:
        most: list[float] = []
        node.api.before = lambda method, path: most.append(node.allocated) if path.endswith("/resize") else None
        node.proxies["a"].want(0.5)
        node.proxies["b"].want(2.2, curve=[[0.1, 9.0], [2.2, 0.0]])
        await until(lambda: node.cores("b") == 2.2)
        assert 0.5 <= node.cores("a") < 0.8, "it may keep what is over of what it needed a moment ago"
        assert node.patches == ["a", "b"]
        assert max([*most, node.allocated]) <= 3.0

    on_a_node(3.0, {"a": 1.9, "b": 1.0}, body, max_cores="2.2")


def test_cores_that_are_held_but_not_needed_now_go_to_who_needs_them() -> None:
    async def body(node: Node) -> None:
        node.proxies["a"].want(2.6)
        await until(lambda: node.in_force("a") == 2.6)
        node.proxies["a"].want(0.8)
        await until(lambda: node.wanted("a") == 0.8)
        node.proxies["b"].want(1.2)
        await until(lambda: node.in_force("b") >= 1.2)
        node.proxies["b"].want(2.6)
        await until(lambda: node.in_force("b") == 2.6)
        assert node.cores("a") < 1.4
        demand = node.sizer.divider.pods[NAMESPACE, "a"].demand
        assert demand is not None
        assert demand.peak == 2.6, "nothing has been forgotten meanwhile"

    on_a_node(4.0, {"a": 0.5, "b": 0.5}, body, max_cores="2.6")


def test_a_shrink_that_cannot_go_is_not_waited_for() -> None:
    tries: list[str] = []

    async def body(node: Node) -> None:
        def refuse(_method: str, path: str) -> None:
            if path.endswith("/a/resize"):
                tries.append(path)
                raise Refused(500, "Whatever")

        node.api.before = refuse
        node.proxies["a"].want(0.5)
        await until(lambda: len(tries) >= 2)
        node.proxies["b"].want(2.5)
        await until(lambda: node.cores("b") > 1.4)
        assert node.cores("a") == 2.5
        assert node.allocated <= 4.0

    on_a_node(4.0, {"a": 2.5, "b": 0.5}, body, max_cores="2.5")


def test_where_a_quota_refuses_the_need_is_met_and_nobody_takes_more_than_that() -> None:
    tries: list[str] = []

    async def body(node: Node) -> None:
        def refuse(_method: str, path: str) -> None:
            if path.endswith("/resize"):
                tries.append(path)
                if len(tries) == 1:
                    raise Refused(403, "Forbidden", "exceeded quota: cpu")

        node.api.before = refuse
        node.proxies["a"].want(1.5)
        await until(lambda: node.in_force("a") == 1.5)
        node.proxies["b"].want(0.6)
        await until(lambda: node.in_force("b") == 0.6)

    on_a_node(8.0, {"a": 0.5, "b": 0.5}, body)


def test_scarce_cores_go_where_they_save_most() -> None:
    async def body(node: Node) -> None:
        node.proxies["a"].want(3.0, curve=[[0.1, 100.0], [3.0, 0.0]])
        node.proxies["b"].want(3.0, curve=[[0.1, 10.0], [3.0, 0.0]])
        await until(lambda: node.cores("a") > 2.0)
        assert node.allocated <= 3.0
        assert node.cores("b") < node.cores("a")

    on_a_node(3.0, {"a": 0.5, "b": 0.5}, body)


def test_priority_weighs_misses() -> None:
    async def whole() -> None:
        async with a_node(3.0) as node:
            await node.add("low", 0.5, ip="127.0.0.1", priority="0")
            await node.add("high", 0.5, ip="127.0.0.2", priority="9", revision="other-00001")
            async with sizing(node):
                await until(lambda: all(proxy.listeners for proxy in node.proxies.values()))
                for proxy in node.proxies.values():
                    proxy.want(2.8, curve=[[0.1, 10.0], [2.8, 0.0]])
                await until(lambda: node.cores("high") > 2.0)
                assert node.allocated <= 3.0

    run(whole())


def test_a_growth_that_does_not_fit_goes_as_far_as_it_can() -> None:
    async def body(node: Node) -> None:
        node.proxies["a"].want(9.0, curve=[[0.1, 9.0], [9.0, 0.0]])
        await until(lambda: node.cores("a") > 1.9)
        assert node.allocated <= 2.0

    on_a_node(2.0, {"a": 0.5}, body)


def test_a_waiting_pod_gets_room_that_others_do_not_need() -> None:
    async def body(node: Node) -> None:
        node.proxies["a"].want(1.9)
        await until(lambda: node.cores("a") == 1.9)
        pending = {
            "metadata": {"name": "new", "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]},
            "status": {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes are available: 1 Insufficient cpu.",
                    }
                ],
            },
        }
        node.api.put(PODS, pending)
        await until(lambda: node.cores("a") <= 1.5)

    on_a_node(2.0, {"a": 0.5}, body, max_cores="1.9")


def test_steady_demand_sends_no_patch() -> None:
    async def body(node: Node) -> None:
        proxy = node.proxies["a"]
        proxy.want(1.0)
        await until(lambda: node.in_force("a") == 1.0)
        before = list(node.patches)
        await until(lambda: node.wanted("a") is not None)
        for want in (0.95, 1.0, 0.92, 0.98):
            proxy.want(want)
            await until(lambda: node.wanted("a") == want)  # noqa: B023
        swept = node.sizer.divider.rows()["n1"]
        await until(lambda: node.sizer.divider.rows()["n1"] is not swept)
        assert node.patches == before

    on_a_node(4.0, {"a": 1.0}, body)


def test_the_board_and_the_metrics_show_it_all() -> None:
    async def body(node: Node) -> None:
        node.proxies["a"].want(1.5, rate=14.0)
        await until(lambda: node.in_force("a") == 1.5)
        await until(lambda: _on_board(node, "cores") == 1.5)
        assert _on_board(node, "rate") == 14.0
        text = node.metrics.render().decode()
        assert 'sponge_revision_cores{namespace="default",revision="hello-00002"} 1.5' in text
        assert 'sponge_resizes_total{outcome="done"} 1.0' in text
        assert "sponge_resize_patch_seconds_count 1.0" in text

    on_a_node(4.0, {"a": 0.5}, body, max_cores="1.5")


def _on_board(node: Node, field: str) -> object:
    document = node.board.as_json()
    return None if document is None else json.loads(document)["revisions"][0]["pods"][0][field]


def test_a_revision_is_as_idle_as_its_busiest_pod_says_and_what_a_silent_pod_does_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(node: Node) -> None:
        def idle_s() -> float | None:
            return node.sizer.idle_s((NAMESPACE, "hello-00002"))

        node.proxies["a"].want(0.5, idle_s=900.0)
        await until(lambda: node.wanted("a") is not None)
        assert idle_s() is None, "the other pod has not said it"
        node.proxies["b"].want(0.5, idle_s=500.0)
        await until(lambda: 500.0 <= (idle_s() or 0.0) < 600.0)
        node.proxies["b"].want(0.5, running=1)
        await until(lambda: idle_s() == 0.0)
        monkeypatch.setattr(claims, "STALE_S", -1.0)
        assert idle_s() is None

    on_a_node(4.0, {"a": 0.5, "b": 0.5}, body)


def test_a_proxy_that_restarted_is_told_its_size_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_resizer, "_SETTLE_S", 0.0)  # a line that comes now was written after the proxy was told

    async def body(node: Node) -> None:
        await until(lambda: ("actuated", 0.5) in node.told["a"])
        node.told["a"].clear()

        def told_again() -> bool:
            node.proxies["a"].say(b'{"cores":0.2,"want":0.5}\n')
            return ("actuated", 0.5) in node.told["a"]

        await until(told_again)

    on_a_node(4.0, {"a": 0.5}, body)
