"""When a node is divided anew, in virtual time: whenever something that its division rests on has changed, else not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from knative_sponge.controller.cluster import managed
from knative_sponge.controller.divider import Divider
from knative_sponge.controller.hand import Hand
from knative_sponge.controller.metrics import Metrics
from knative_sponge.controller.nodeview import NodeView
from knative_sponge.controller.podview import PodView, view
from knative_sponge.controller.resource import Key, Object
from knative_sponge.controller.streams import Line
from knative_sponge.core.resize_events import Connected, PatchFailed
from tests.controller.sized_pod import running, sized
from tests.controller.test_outage import Around, Store
from tests.profile.virtual import run_virtual

NODE = "n1"


class Place:
    """Stands in for `Cluster`: one node."""

    def __init__(self) -> None:
        self.view = NodeView(NODE, 8.0, 8e9)
        self.pods: dict[Key, PodView] = {}
        self.taken = 0.0
        self.waits = 0.0
        self.looks = 0
        """How often somebody asked for the node's pods."""
        self.tell: Callable[[PodView | None, PodView | None], None] = lambda _before, _after: None

    def subscribe(self, subscriber: Callable[[PodView | None, PodView | None], None]) -> None:
        self.tell = subscriber

    @property
    def nodes(self) -> Iterator[str]:
        return iter((NODE,))

    def node(self, _name: str) -> NodeView:
        return self.view

    def managed_on(self, _name: str) -> tuple[PodView, ...]:
        self.looks += 1
        return tuple(pod for _, pod in sorted(self.pods.items()) if managed(pod))

    def reserved(self, _name: str) -> float:
        return self.taken

    def waiting(self) -> Mapping[str, float]:
        return {NODE: self.waits} if self.waits else {}


class Streams:
    """Stands in for `DemandStreams`: says what the test says."""

    def follow(self, pods: Mapping[Key, object]) -> None:
        pass

    def close(self) -> None:
        pass


class Stage(Around):
    """Pods a and b of half a core each, whose sizes come into force as soon as they are patched."""

    def __init__(self) -> None:
        self.store = Store()
        super().__init__(self.store)
        self.place = Place()
        self.lines: dict[str, Line] = {}
        self.rates = count(1)
        self.answers = asyncio.Event()
        """Do proxies answer when they are told?"""
        self.answers.set()

        def streams(heard: Any) -> Any:
            self.heard = heard
            return Streams()

        clock = asyncio.get_running_loop().time
        cluster: Any = self.place
        optimizer: Any = None
        self.divider = Divider(cluster, lambda pod: Hand(pod, self, clock), streams, optimizer, Metrics(), clock=clock)
        for name in self.store.pods:
            self.put(self.store.pods[name])
            self.say(name, 0.5)

    def hand(self, name: str) -> Hand:
        return self.divider.hands["default", name]

    def put(self, pod: Object) -> None:
        seen = view(pod)
        before, self.place.pods[seen.key] = self.place.pods.get(seen.key), seen
        self.place.tell(before, seen)
        self.divider.touch(NODE)

    def change(self, name: str, cores: float | None = None, **annotations: str) -> None:
        """Somebody changes the pod."""
        pod: Any = self.store.pods[name]
        if cores is not None:
            sized(pod, cores)
        for key, value in annotations.items():
            pod["metadata"]["annotations"][f"knative-sponge.dev/{key.replace('_', '-')}"] = value
        self.put(pod)

    def add(self, name: str) -> None:
        pod = self.store.pods[name] = running(cpu="500m")
        pod["metadata"] |= {"name": name, "uid": f"u-{name}"}
        self.change(name, 0.5)

    def remove(self, name: str) -> None:
        self.place.tell(self.place.pods.pop(("default", name)), None)
        del self.lines[name]

    def say(self, name: str, want: float) -> None:
        """The pod says what it wants; what else it says is new each time."""
        before, rate = self.lines.get(name), float(next(self.rates))
        cores, curve = self.place.pods["default", name].size, ((0.1, rate), (0.9 * want, 0.0))
        line = self.lines[name] = Line(cores=cores, want=want, rate=rate, curve=curve)
        self.heard(("default", name), before, line)

    def say_again(self) -> None:
        for name, line in self.lines.items():
            self.say(name, line.want)

    async def tell(self, pod: PodView, phase: str, cores: float, reach: float) -> bool:
        await self.answers.wait()
        return await super().tell(pod, phase, cores, reach)

    def patched(self, hand: Hand, cores: float, answer: Object) -> None:
        sized(answer, cores)
        self.put(answer)

    async def divided(self) -> bool:
        """Is the node divided when it is looked at now?"""
        row = self.divider.nodes.get(NODE)
        await self.divider._divide_all({NODE})
        return self.divider.nodes.get(NODE) is not row

    async def settle(self, looks: int = 60) -> None:
        """Until nothing changes any more: no resize under way, and no need that is about to be forgotten."""
        for _ in range(looks):
            self.say_again()
            await self.divided()
            await asyncio.sleep(1.0)
        self.say_again()
        assert not await self.divided()


def staged(body: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        stage = Stage()
        try:
            await body(stage)
        finally:
            stage.divider.close()

    run_virtual(whole)


def test_a_node_where_pods_only_say_again_what_they_want_is_not_divided_anew() -> None:
    async def body(stage: Stage) -> None:
        assert await stage.divided()
        await stage.settle()
        for _ in range(30):
            await asyncio.sleep(1.0)
            stage.say_again()
            assert not await stage.divided()

    staged(body)


def test_a_size_that_is_kept_no_longer_goes_at_once_not_with_the_next_line() -> None:
    """Lines come each second; a shrink that waits for one of them is late by up to that."""

    async def body(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(stage.divider.run())
        stage.say("a", 0.9)
        await asyncio.sleep(1.4)
        hand = stage.hand("a")
        grown, sized_s = hand.machine.asked, hand.sized_s
        assert grown > 0.9
        stage.say("a", 0.2)
        await asyncio.sleep(0.2)
        while loop.time() < sized_s + 7.9:
            stage.say_again()
            await asyncio.sleep(min(1.0, sized_s + 7.95 - loop.time()))
        assert hand.machine.asked == grown
        await asyncio.sleep(0.15)
        assert hand.machine.asked < grown
        running.cancel()

    staged(body)


async def _more_cores(stage: Stage) -> None:
    stage.place.view = replace(stage.place.view, cores=9.0)


async def _more_cores_that_others_take(stage: Stage) -> None:
    stage.place.view = replace(stage.place.view, cores=9.0)
    stage.place.taken = 1.0


async def _others_take_more(stage: Stage) -> None:
    stage.place.taken = 1.0


async def _a_pod_waits(stage: Stage) -> None:
    stage.place.waits = 1.0


async def _another_pod(stage: Stage) -> None:
    stage.add("c")


async def _a_pod_less(stage: Stage) -> None:
    stage.remove("b")


async def _other_bounds(stage: Stage) -> None:
    stage.change("a", max_cores="3")


async def _another_want(stage: Stage) -> None:
    stage.say("a", 0.6)


async def _somebody_resizes(stage: Stage) -> None:
    stage.change("a", 0.7)


async def _silence(stage: Stage) -> None:
    await asyncio.sleep(3.5)


async def _a_word_after_silence(stage: Stage) -> None:
    await asyncio.sleep(3.5)
    assert await stage.divided()
    assert not await stage.divided()
    stage.say_again()


async def _a_refusal(stage: Stage) -> None:
    stage.hand("a").machine.handle(PatchFailed(2.0, "refused", "no"), asyncio.get_running_loop().time())


async def _the_end_of_a_refusal(stage: Stage) -> None:
    await _a_refusal(stage)
    await stage.settle(20)
    while stage.hand("a").machine.ceiling(asyncio.get_running_loop().time()) is not None:
        stage.say_again()
        assert not await stage.divided()
        await asyncio.sleep(1.0)
    stage.say_again()


async def _what_was_needed_is_forgotten(stage: Stage) -> None:
    stage.say("a", 0.505)  # too little to be given another size for
    await stage.divided()
    stage.say("a", 0.5)
    await asyncio.sleep(1.0)
    for _ in range(7):
        stage.say_again()
        assert not await stage.divided()
        await asyncio.sleep(1.1)
    stage.say_again()


async def _something_under_way(stage: Stage) -> None:
    stage.answers.clear()
    stage.hand("a").handle(Connected())


async def _a_hand_that_begins_anew(stage: Stage) -> None:
    stage.hand("a")._begin_anew()


@pytest.mark.parametrize(
    "happens",
    [
        _more_cores, _more_cores_that_others_take, _others_take_more, _a_pod_waits, _another_pod, _a_pod_less,
        _other_bounds, _another_want, _somebody_resizes, _silence, _a_word_after_silence, _a_refusal,
        _the_end_of_a_refusal, _what_was_needed_is_forgotten, _something_under_way, _a_hand_that_begins_anew,
    ],
    ids=lambda happens: happens.__name__.strip("_").replace("_", " "),
)  # fmt: skip
def test_whatever_a_division_rests_on_has_the_node_divided_anew(happens: Callable[[Stage], Awaitable[None]]) -> None:
    async def body(stage: Stage) -> None:
        await stage.settle()
        await happens(stage)
        assert await stage.divided()

    staged(body)


def test_a_size_that_was_kept_for_a_while_is_taken_back() -> None:
    async def body(stage: Stage) -> None:
        await stage.settle()
        stage.say("a", 2.0)
        await stage.divided()
        await asyncio.sleep(0.1)
        assert stage.hand("a").machine.asked >= 2.0
        stage.say("a", 0.5)
        await stage.settle()
        assert stage.hand("a").machine.asked < 2.0

    staged(body)


def test_a_node_with_something_under_way_is_divided_again_and_again() -> None:
    async def body(stage: Stage) -> None:
        await stage.settle()
        stage.answers.clear()
        stage.say("a", 2.0)
        await stage.divided()
        for _ in range(5):
            await asyncio.sleep(0.1)
            assert stage.hand("a").moving
            assert await stage.divided()
        stage.answers.set()
        await stage.settle()

    staged(body)


async def _running(stage: Stage, seconds: float) -> list[float]:
    """Let it run while the pods say again what they want. Returns when the node was divided, from the start."""
    loop = asyncio.get_running_loop()
    begun_s, row, divided = loop.time(), stage.divider.nodes.get(NODE), []
    for step in range(1, round(seconds * 100) + 1):
        if step % 100 == 0:
            stage.say_again()
        await asyncio.sleep(begun_s + step / 100 - loop.time())
        if (now := stage.divider.nodes.get(NODE)) is not row:
            row = now
            divided.append(loop.time() - begun_s)
    return divided


def run_along(body: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole(stage: Stage) -> None:
        await stage.settle()
        task = asyncio.create_task(stage.divider.run())
        try:
            await _running(stage, 10.0)
            await body(stage)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    staged(whole)


def test_a_quiet_node_is_hardly_looked_at_and_all_the_same_divided_at_once_when_a_pod_wants_another_size() -> None:
    async def body(stage: Stage) -> None:
        before = stage.place.looks
        assert await _running(stage, 30.0) == []
        assert stage.place.looks - before <= 12
        stage.say("a", 1.0)
        first, *_ = await _running(stage, 1.0)
        assert first < 0.05

    run_along(body)


def test_what_nobody_tells_of_is_noticed_soon() -> None:
    async def body(stage: Stage) -> None:
        stage.place.taken = 1.0
        first, *_ = await _running(stage, 10.0)
        assert first < 5.0

    run_along(body)


def test_a_need_that_fades_is_noticed_with_the_next_line() -> None:
    async def body(stage: Stage) -> None:
        stage.say("a", 2.0)
        await _running(stage, 0.5)
        asked = stage.hand("a").machine.asked
        stage.say("a", 0.5)
        await _running(stage, 7.4)
        assert stage.hand("a").machine.asked == asked > 0.5
        await _running(stage, 1.2)
        assert stage.hand("a").machine.asked < asked

    run_along(body)


def test_so_is_the_end_of_the_time_that_a_size_is_kept() -> None:
    async def body(stage: Stage) -> None:
        stage.say("a", 1.5)
        await _running(stage, 0.5)
        stage.say("a", 4.0)
        await _running(stage, 0.1)
        stage.say("a", 0.5)  # forgotten before the size that is patched in half a second may be taken back
        await _running(stage, 1.0)
        hand = stage.hand("a")
        asked, kept_s = hand.machine.asked, hand.sized_s + 8.0 - asyncio.get_running_loop().time()
        await _running(stage, kept_s - 0.02)
        assert hand.machine.asked == asked > 2.5
        await _running(stage, 1.1)
        assert hand.machine.asked < asked

    run_along(body)


def test_a_node_that_is_short_is_divided_twice_a_second() -> None:
    async def body(stage: Stage) -> None:
        for name in ("a", "b"):
            stage.say(name, 6.0)
        await _running(stage, 5.0)
        assert 8 <= len(await _running(stage, 5.0)) <= 12

    run_along(body)


def test_others_have_their_turn_while_many_nodes_are_divided() -> None:
    async def body(stage: Stage) -> None:
        slow = iter(range(10**6))
        stage.divider._clock = lambda: next(slow) * 0.001  # each look at the clock takes a millisecond
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await stage.divider._divide_all({f"n{number}" for number in range(100)})
        task.cancel()
        assert turns >= 10

    staged(body)
