"""What the metrics page shows of how well pods are heard, in virtual time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.sizing.overview import Overviews
from tests.controller.sizing.divider_kit import Stage, staged


def streams(stage: Stage) -> dict[str, int]:
    """Pods by state, as the page has them."""
    lines = [line.split() for line in stage.metrics.render().decode().splitlines()]
    named = {name: float(value) for name, value in (line for line in lines if len(line) == 2)}
    return {state: int(named[f'sponge_demand_streams{{state="{state}"}}']) for state in ("live", "stale", "down")}


def published(stage: Stage) -> None:
    watches: Any = SimpleNamespace(autoscalers=SimpleNamespace(objects={}, get=lambda _key: None))
    Overviews(stage.divider, watches, stage.metrics, Board(), asyncio.get_running_loop().time).publish()


def test_a_pod_is_live_while_it_speaks_then_stale_and_down_if_it_never_spoke() -> None:
    async def body(stage: Stage) -> None:
        published(stage)
        stage.add("c")
        assert streams(stage) == {"live": 2, "stale": 0, "down": 1}
        await asyncio.sleep(2.9)
        stage.say("a", 0.5)
        await asyncio.sleep(0.2)
        assert streams(stage) == {"live": 1, "stale": 1, "down": 1}
        stage.say("b", 0.5)
        stage.say("c", 0.5)
        assert streams(stage) == {"live": 3, "stale": 0, "down": 0}
        stage.remove("c")
        await asyncio.sleep(3.1)
        assert streams(stage) == {"live": 0, "stale": 2, "down": 0}

    staged(body)


def test_nothing_is_shown_of_pods_before_it_is_published_nor_once_this_replica_leads_no_more() -> None:
    async def body(stage: Stage) -> None:
        assert streams(stage) == {"live": 0, "stale": 0, "down": 0}
        published(stage)
        assert streams(stage)["live"] == 2
        stage.metrics.leads(False)
        assert streams(stage) == {"live": 0, "stale": 0, "down": 0}

    staged(body)
