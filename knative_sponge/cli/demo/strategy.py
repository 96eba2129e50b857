"""The four strategies that the demo compares, and one run of one of them under the load. It draws and prints nothing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from knative_sponge.cli.demo.report import StrategyRun
from knative_sponge.cli.demo.scenario import Scenario
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.runner import LocalService
from knative_sponge.profile.client import Job
from knative_sponge.profile.generator import Load, run_load
from knative_sponge.profile.load import Body, Outcome

FIFO_BATCH: Final = 8
FIFO_TIMEOUT: Final = "50ms"
PATIENCE_S: Final = 5.0
"""A client waits so long beyond its deadline, so that the report knows how late an answer was."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """The difference between runs. fixed_cores: None follows demand. max_batch: None is the default. env: for the proxy."""

    name: str
    fixed_cores: float | None = None
    max_batch: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def apply(self, options: LocalOptions) -> LocalOptions:
        """The options of a service that follows this strategy."""
        settings = options.settings
        if self.max_batch is not None:
            settings = replace(settings, max_batch=self.max_batch)
        return replace(options, settings=settings, fixed_cores=self.fixed_cores, env={**options.env, **self.env})


SPONGE: Final = Strategy("sponge")


def static_mean(mean_cores: float) -> Strategy:
    """Our proxy with fixed cores: the mean of those that `SPONGE` used."""
    return Strategy("static-mean", _millicores(mean_cores))


def fifo(mean_cores: float) -> Strategy:
    """First come, first served with fixed batches, with the mean cores that `SPONGE` used."""
    env = {"SPONGE_POLICY": "fifo", "SPONGE_FIFO_TIMEOUT": FIFO_TIMEOUT}
    return Strategy("fifo", _millicores(mean_cores), FIFO_BATCH, env)


def static_max(max_cores: float) -> Strategy:
    """Our proxy with the most cores, fixed."""
    return Strategy("static-max", max_cores)


class Service(Protocol):
    """A running service, as far as the demo reads it."""

    @property
    def url(self) -> str:
        """Where requests go, without path."""
        ...

    @property
    def cores_history(self) -> Sequence[tuple[float, float]]:
        """(seconds since the service was ready, cores from then on), ascending."""
        ...


OpenService = Callable[[LocalOptions], AbstractAsyncContextManager[Service]]
Generate = Callable[[Job, Callable[[Outcome], None]], Awaitable[Load]]


async def perform(
    strategy: Strategy,
    options: LocalOptions,
    scenario: Scenario,
    *,
    path: str,
    bodies: Sequence[Body],
    heard: Callable[[Outcome], None],
    open_service: OpenService = LocalService,
    generate: Generate = run_load,
    clock: Callable[[], float] = time.monotonic,
) -> StrategyRun:
    """Start a service, carry out the scenario's plan on it, end it. heard: is given every outcome as it comes."""
    async with open_service(strategy.apply(options)) as service:
        ready_s = clock()
        load = await generate(Job(service.url + path, tuple(bodies), scenario.planned, PATIENCE_S), heard)
        cores = tuple((at_s + ready_s - load.start_s, size) for at_s, size in service.cores_history)
    return StrategyRun(strategy.name, float(scenario.seconds), load.outcomes, cores)


def _millicores(cores: float) -> float:
    return max(round(cores, 3), 0.001)
