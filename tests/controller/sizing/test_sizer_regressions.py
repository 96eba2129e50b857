"""What must not stop the sizing of pods: numbers that cannot be, a pod or node that is not understood, answers out of order."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from knative_sponge.controller.kube.resource import PODS
from knative_sponge.controller.sizing import claims, divider
from knative_sponge.controller.sizing import pod_resizer as resizer
from knative_sponge.controller.sizing.claims import PodDemand
from knative_sponge.controller.sizing.cpsat import Refiner, RefineRules
from knative_sponge.controller.sizing.hybrid_pod_counts import PodCounts
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.core.resizing.events import Connected, NodeChanged, Target
from knative_sponge.wire.demand import DemandLine
from tests.controller.revision_kit import run, until
from tests.controller.sized_pod import running, viewed
from tests.controller.sizing.node_kit import NAMESPACE, Node, a_node, sizing
from tests.controller.sizing.test_cpsat import RULES, unproven


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"cores":1.0,"want":1e308}', id="want"),
        pytest.param(b'{"cores":1.0,"want":2.9,"curve":[[0.5,9.0],[1e308,0.0]]}', id="curve"),
        pytest.param(b'{"cores":1.0,"want":2.9,"curve":[[0.5,1e308],[2.0,0.0]]}', id="misses"),
        pytest.param(b'{"cores":1.0,"want":1.0,"queued":-1}', id="queue"),
        pytest.param(b'{"cores":1.0,"want":1.0,"params":[-1,0,0,0],"samples":9}', id="model"),
    ],
)
def test_numbers_that_cannot_be_are_not_heard_and_the_other_pods_are_sized(line: bytes) -> None:
    async def body() -> None:
        async with a_node(3.0) as node:
            await node.add("a", 1.0, ip="127.0.0.1")
            await node.add("b", 1.0, ip="127.0.0.2", max_cores="1.8")
            async with sizing(node):
                await until(lambda: all(node.wanted(name) is not None for name in ("a", "b")))
                node.proxies["a"].say(line + b"\n")
                await until(lambda: node.told["a"].count(("demand", 1)) >= 2)  # it is listened to anew
                node.proxies["b"].want(1.8, curve=[[0.1, 9.0], [1.8, 0.0]])
                await until(lambda: node.in_force("b") == 1.8)
                assert node.cores("a") == 1.0
                assert node.board.as_json() is not None

    run(body())


def test_a_node_that_cannot_be_divided_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = claims.claim

    def claim(pod: Any, *rest: Any) -> Any:
        if pod.key[1] == "a":
            raise ValueError("not understood")
        return whole(pod, *rest)

    async def body() -> None:
        async with a_node(3.0) as node:
            await node.add("a", 1.0, ip="127.0.0.1", max_cores="1.7")
            await node.add("b", 1.0, ip="127.0.0.2", max_cores="1.8")
            _move(node, "b", "n2")
            monkeypatch.setattr(divider, "claim", claim)
            async with sizing(node):
                await until(lambda: all(node.wanted(name) is not None for name in ("a", "b")))
                node.proxies["b"].want(1.8)
                await until(lambda: node.in_force("b") == 1.8)
                monkeypatch.setattr(divider, "claim", whole)
                node.proxies["a"].want(1.7)
                await until(lambda: node.in_force("a") == 1.7)

    run(body())


def _move(node: Node, name: str, to: str) -> None:
    node.put_node(3.0, to)
    pod = node.api.get(PODS, name, NAMESPACE)
    assert pod is not None
    pod["spec"]["nodeName"] = to
    node.api.put(PODS, pod)


@pytest.mark.parametrize("silent", [False, True])
def test_a_pod_whose_resize_was_not_understood_keeps_its_cores_and_is_resized_later(
    silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resizer, "_AGAIN_S", 0.1)

    async def body() -> None:
        async with a_node(3.0) as node:
            await node.add("a", 1.0, ip="127.0.0.1", max_cores="1.6")
            await node.add("b", 1.0, ip="127.0.0.2")
            async with sizing(node) as sizer:
                await until(lambda: all(node.wanted(name) is not None for name in ("a", "b")))
                key = (NAMESPACE, "a")
                await until(lambda: not sizer.divider.pods[key].resizer.busy)
                if silent:
                    monkeypatch.setattr(claims, "STALE_S", -1.0)
                broken = _Broken(sizer.divider.pods[key].resizer)
                await until(lambda: broken.times)
                await until(lambda: not sizer.divider.pods[key].resizer.busy)
                assert sizer.divider.pods[key].resizer.machine.asked == 1.0
                sizer.divider.touch("n1")
                if silent:
                    monkeypatch.undo()
                node.proxies["a"].want(1.6)
                await until(lambda: node.in_force("a") == 1.6)

    run(body())


class _Broken:
    """ResizeEffects of a resizer that raise once."""

    def __init__(self, of: PodResizer) -> None:
        self.times = 0
        self._resizer, self._effects = of, of._effects
        of._effects = self
        of.handle(Connected())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._effects, name)

    async def tell(self, *_: Any) -> bool:
        self.times += 1
        self._resizer._effects = self._effects
        raise LookupError("not understood")


def test_a_resizer_that_was_closed_does_nothing_more() -> None:
    async def body() -> None:
        pod = viewed(running(cpu="1"))
        effects: Any = SimpleNamespace(phase_changed=lambda _event: None)
        one = PodResizer(pod, effects, asyncio.get_running_loop().time)
        one.close()
        one.see(pod)
        one.handle(Target(2.0))
        assert not one.busy
        assert one._timer is None

    run(body())


def test_what_was_reported_is_forgotten_in_time() -> None:
    async def body() -> None:
        async with a_node(3.0) as node:
            await node.add("a", 1.0, ip="127.0.0.1")
            async with sizing(node) as sizer:
                sizer._reported[NAMESPACE, "gone-00001", "Resized"] = float("-inf")
                await until(lambda: not sizer._reported)

    run(body())


def test_an_overcommitted_node_does_not_look_changed_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[type] = []
    whole = PodResizer.handle

    def handle(self: PodResizer, event: Any) -> None:
        events.append(type(event))
        whole(self, event)

    async def body() -> None:
        async with a_node(1.0) as node:
            await node.add("a", 0.5, ip="127.0.0.1")
            other = {"containers": [{"name": "x", "resources": {"requests": {"cpu": "2"}}}], "nodeName": "n1"}
            node.api.put(PODS, {"metadata": {"name": "x", "namespace": NAMESPACE}, "spec": other, "status": {}})
            async with sizing(node) as sizer:
                await until(lambda: "n1" in sizer.divider.rows())
                monkeypatch.setattr(PodResizer, "handle", handle)
                divided: list[None] = []
                monkeypatch.setattr(node.metrics, "divided", lambda _s: divided.append(None))
                await until(lambda: len(divided) >= 4)

    run(body())
    assert NodeChanged not in events


def test_nodes_that_cannot_wait_for_their_turn_do_not_cost_the_solver_its_process() -> None:
    script = (
        "import json, sys, time\nprint('{\"ready\": true}', flush=True)\n"
        "for line in sys.stdin:\n"
        " time.sleep(0.6); print(json.dumps({'id': json.loads(line)['id'], 'sizes': None}), flush=True)"
    )
    rules = RefineRules(limit_s=0.7, deadline_s=1.0, command=(sys.executable, "-S", "-c", script))

    async def body() -> None:
        claims, capacity, greedy = unproven()
        solver = Refiner(rules)
        try:
            await solver._start()
            before = solver.pid
            asked = (solver.refine(claims, capacity, RULES, greedy) for _ in range(4))
            assert all(division is greedy for division in await asyncio.gather(*asked))
            assert solver.pid == before is not None
        finally:
            await solver.close()

    run(body())


def test_what_a_pods_sandbox_takes_is_not_divided() -> None:
    pod = running()
    plain = viewed(pod).others
    pod["spec"]["overhead"] = {"cpu": "250m"}
    assert viewed(pod).others == pytest.approx(plain + 0.25)


def test_a_model_that_cannot_be_stops_no_count() -> None:
    pod = viewed(running(cpu="1", scaling="hybrid", max_cores="4"))
    line = DemandLine(cores=1.0, want=1.0, rate=2.0, slack=1.0, params=(0.0, 0.0, 0.0, 0.0), samples=50)
    resizer = SimpleNamespace(pod=pod, machine=SimpleNamespace(target=1.0))
    pods: Any = {pod.key: SimpleNamespace(resizer=resizer, demand=PodDemand(line, 1.0, 0.0))}
    changes: list[Any] = []
    counts = PodCounts()
    counts.subscribe(changes.append)
    run(counts.look(pods, {}, 0.0))
    assert changes == []
