"""The slow loop: pod counts of `hybrid` revisions from what their proxies say, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.claims import PodDemand
from knative_sponge.controller.sizing.hybrid_pod_counts import PERIOD_S, PodCounts
from knative_sponge.wire.demand import DemandLine
from tests.controller.sized_pod import running, viewed

REVISION = ("default", "hello-00002")
YOLO = (0.14, 0.025, 0.0, 0.022)
"""γ, δ, ε, η of a detector: 190 ms a row on one core, and hardly less for each row of a batch."""
ROW = NodeRow("n1", 16.0, 0.0, 4.0, 4.0, short=False)


@dataclass
class World:
    """Pods of one revision, and what each said last."""

    pods: int = 1
    rate: float = 2.0
    slack_s: float = 1.0
    samples: int = 50
    scaling: str = "hybrid"
    want: float = 1.0
    node: NodeRow = ROW
    now: float = 0.0

    def __post_init__(self) -> None:
        self.changes: list[Any] = []
        self.counts = PodCounts()
        self.counts.subscribe(self.changes.append)

    def look(self, seconds: float = PERIOD_S, *, news_s: float = 0.0) -> int | None:
        """Look on for so long; news are `news_s` old."""
        end_s = self.now + seconds
        while self.now < end_s:
            self.now += PERIOD_S
            pods: Any = {}
            for number in range(self.pods):
                pod = running(cpu="1", scaling=self.scaling, max_cores="4")
                pod["metadata"]["name"] = f"p{number}"
                seen = viewed(pod)
                resizer = SimpleNamespace(pod=seen, machine=SimpleNamespace(target=1.0))
                line = DemandLine(
                    cores=1.0,
                    want=self.want,
                    rate=self.rate / self.pods,
                    slack=self.slack_s,
                    params=YOLO,
                    samples=self.samples,
                )
                demand = PodDemand(line, self.want, self.now - news_s)
                pods[seen.key] = SimpleNamespace(resizer=resizer, demand=demand)
            asyncio.run(self.counts.look(pods, {"n1": self.node}, self.now))
        return self.counts.wanted(REVISION)


def test_a_vertical_revision_has_no_count() -> None:
    assert World(scaling="vertical", rate=100.0).look(60) is None


def test_load_that_small_pods_carry_with_fewer_cores_gets_more_of_them() -> None:
    world = World(rate=2.0)
    assert world.look(20) == 1
    world.rate = 12.0
    grown = world.look(60)
    assert grown is not None
    assert grown >= 3
    assert set(world.changes) == {REVISION}


def test_a_short_rush_changes_nothing() -> None:
    world = World()
    world.look(20)
    world.rate = 12.0
    world.look(6)
    world.rate = 2.0
    assert world.look(30) == 1
    assert world.changes == []


def test_pods_go_slowly_when_the_load_has_gone() -> None:
    world = World(pods=4, rate=12.0)
    assert world.look(20) == 4
    world.rate = 1.0
    assert world.look(50) == 4
    assert world.look(30) == 2, "no more than half at a time"


def test_a_pod_whose_node_cannot_give_it_more_gets_company_at_once() -> None:
    world = World(rate=3.0, want=3.0, node=replace(ROW, short=True))
    assert world.look(PERIOD_S) == 2


def test_company_that_never_comes_is_not_multiplied() -> None:
    """The second pod finds no room, or `max-scale` forbids it."""
    world = World(rate=3.0, want=3.0, node=replace(ROW, short=True))
    assert world.look(600) == 2
    world.node, world.rate, world.want = ROW, 1.0, 1.0
    assert world.look(70) == 1


def test_a_count_that_min_scale_holds_up_has_not_far_to_go_when_load_comes() -> None:
    world = World(pods=8, rate=2.0)
    world.look(300)
    world.rate = 20.0
    grown = world.look(14)
    assert grown is not None
    assert grown > 4


def test_nothing_is_decided_on_old_news_or_on_a_guess() -> None:
    assert World(rate=100.0).look(60, news_s=5.0) is None
    assert World(rate=100.0, samples=3).look(60) is None


def test_a_count_is_kept_while_nobody_speaks_and_forgotten_with_the_revision() -> None:
    world = World(pods=2, rate=5.0)
    world.look(10)
    before = world.counts.wanted(REVISION)
    assert before is not None
    assert world.look(20, news_s=9.0) == before
    asyncio.run(world.counts.look({}, {}, world.now))
    assert world.counts.wanted(REVISION) is None
