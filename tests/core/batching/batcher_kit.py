"""A batcher that defers nothing unless it is told to, and work for it."""

from __future__ import annotations

from typing import Any

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import Dispatch
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.model import LatencyModel
from tests.core.batching.histories import Driver, exact_model

NEVER = DeferRules(mode="never")


def machine(*, cores: float = 1.0, reach: float = 4.0, model: LatencyModel | None = None, **rules: Any) -> Batcher:
    return Batcher(BatchRules(**{"defer": NEVER, "max_rows": 4, **rules}), model or exact_model(), cores, reach)


def works(*slacks_s: float, now: float = 0.0) -> list[Work]:
    return [Work(key, now + slack_s, arrived_s=now) for key, slack_s in enumerate(slacks_s, start=1)]


def batches(driver: Driver) -> list[list[int]]:
    return [[work.key for work in command.works] for _, command in driver.log if isinstance(command, Dispatch)]
