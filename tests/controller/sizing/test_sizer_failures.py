"""Sizes of pods as a whole when patches are refused, races are lost, and pods vanish."""

from __future__ import annotations

import pytest

from knative_sponge.controller.kube.resource import EVENTS, PODS
from knative_sponge.controller.sizing import sizer
from tests.controller.apiserver import Refused
from tests.controller.revision_kit import run, until
from tests.controller.sizing.node_kit import NAMESPACE, Node, a_node, on_a_node, sizing


@pytest.mark.parametrize("code", [409, 429, 500, 503])
def test_a_patch_that_the_api_server_does_not_take_is_tried_again(code: int) -> None:
    async def body(node: Node) -> None:
        tries: list[int] = []

        def refuse(_method: str, path: str) -> None:
            if path.endswith("/resize"):
                tries.append(code)
                if len(tries) == 1:
                    raise Refused(code, "Whatever")

        node.api.before = refuse
        node.proxies["a"].want(1.5)
        await until(lambda: node.in_force("a") == 1.5)
        assert len(tries) == 2
        await until(lambda: ("actuated", 1.5) in node.told["a"])

    on_a_node(4.0, {"a": 0.5}, body, max_cores="1.5")


def test_a_quota_that_forbids_a_growth_is_reported_and_the_proxy_is_not_fooled() -> None:
    async def body(node: Node) -> None:
        def refuse(_method: str, path: str) -> None:
            if path.endswith("/resize"):
                raise Refused(403, "Forbidden", "exceeded quota: cpu")

        node.api.before = refuse
        node.proxies["a"].want(1.5)
        await until(lambda: any(event["reason"] == "ResizeFailed" for event in node.api.all(EVENTS)))
        assert "exceeded quota" in node.api.all(EVENTS)[0]["note"]
        assert ("actuated", 1.5) not in node.told["a"]

    on_a_node(4.0, {"a": 0.5}, body)


def test_a_pod_of_which_nothing_is_heard_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizer, "_SILENT_S", 0.0)

    async def body(node: Node) -> None:
        await until(lambda: node.api.all(EVENTS))
        (event,) = node.api.all(EVENTS)
        assert (event["reason"], event["type"]) == ("NoNews", "Warning")
        assert event["note"] == "Pod a: nothing was heard from its proxy for 0 s; it keeps its size"

    async def whole() -> None:
        async with a_node(3.0) as node:
            await node.add("a", 1.0, ip="127.0.0.1")
            await node.proxies["a"].close()
            async with sizing(node):
                await body(node)

    run(whole())


def test_a_pod_that_vanishes_in_mid_resize_is_forgotten() -> None:
    async def body(node: Node) -> None:
        node.applies = False
        node.proxies["a"].want(1.5)
        await until(lambda: node.cores("a") > 1.5)
        node.api.remove(PODS, "a", NAMESPACE)
        await until(lambda: (NAMESPACE, "a") not in node.sizer.divider.pods)
        node.proxies["b"].want(3.5)
        node.applies = True
        await until(lambda: node.in_force("b") == 3.5)

    on_a_node(4.0, {"a": 0.5, "b": 0.5}, body, max_cores="3.5")
