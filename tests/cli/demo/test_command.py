"""The demo's flow, around services and loads that are made up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from knative_sponge.cli.demo.command import main
from knative_sponge.cli.demo.publish import lag_text, publish
from knative_sponge.cli.demo.report import StrategyRun
from knative_sponge.cli.demo.scenario import Scenario
from knative_sponge.cli.demo.strategy import SPONGE, Service, Strategy, fifo, perform, static_max, static_mean
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.errors import SettingError
from knative_sponge.local.options import LocalOptions
from knative_sponge.profile.arrivals import ArrivalKind
from knative_sponge.profile.client import Job
from knative_sponge.profile.generator import Load
from knative_sponge.profile.load import Body, Outcome, Planned
from knative_sponge.profile.trace import TraceKind
from knative_sponge.settings import ServingSettings
from tests.cli.demo.sample_run import RATES, RUN

pytestmark = pytest.mark.anyio

PLANNED = (Planned(0.5, 0.1, 0.5), Planned(1.0, 0.1, 0.5))
SCENARIO = Scenario(0.5, 1.4, RATES, PLANNED, ArrivalKind.POISSON, TraceKind.QMAP, 1)
OPTIONS = LocalOptions(command=("server",), settings=ServingSettings(slo_s=0.5, max_cores=1.4, cpu_hook="/cpu"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class FakeService:
    """Was ready 2 s before the load starts."""

    url: str = "http://127.0.0.1:1"
    cores_history: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 1.4), (2.5, 0.3)])


@dataclass
class Stage:
    """Opens fake services and answers every request after 0.2 s; remembers what it was asked for."""

    options: list[LocalOptions] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    running: int = 0

    @asynccontextmanager
    async def open(self, options: LocalOptions) -> AsyncIterator[Service]:
        self.options.append(options)
        self.running += 1
        yield FakeService()
        self.running -= 1

    async def generate(self, job: Job, heard: Callable[[Outcome], None]) -> Load:
        assert self.running == 1
        self.jobs.append(job)
        outcomes = tuple(Outcome(planned, 0.001, planned.at_s + 0.2, 200, None, 1) for planned in job.planned)
        for outcome in outcomes:
            heard(outcome)
        return Load(102.0, outcomes)


async def run(strategy: Strategy, stage: Stage, heard: Callable[[Outcome], None] = lambda _: None) -> StrategyRun:
    return await perform(
        strategy, OPTIONS, SCENARIO, path="/infer", bodies=[Body(b"x", {})], heard=heard,
        open_service=stage.open, generate=stage.generate, clock=lambda: 100.0,
    )  # fmt: skip


async def test_a_run_sends_the_plan_to_the_service_and_hears_every_outcome() -> None:
    stage, heard = Stage(), list[Outcome]()
    done = await run(SPONGE, stage, heard.append)
    assert stage.jobs[0].url == "http://127.0.0.1:1/infer"
    assert stage.jobs[0].planned == PLANNED
    assert tuple(heard) == done.outcomes
    assert stage.running == 0


async def test_cores_are_told_in_the_loads_own_time() -> None:
    done = await run(SPONGE, Stage())
    assert done.cores == ((-2.0, 1.4), (0.5, 0.3))
    assert done.seconds == len(RATES)


async def test_strategies_differ_only_in_size_and_policy() -> None:
    stage = Stage()
    for strategy in (SPONGE, static_mean(0.71234), fifo(0.71234), static_max(1.4)):
        await run(strategy, stage)
    ours, mean, first, most = stage.options
    assert ours == OPTIONS
    assert mean == replace(OPTIONS, fixed_cores=0.712)
    assert most == replace(OPTIONS, fixed_cores=1.4)
    assert (first.fixed_cores, first.env["SPONGE_POLICY"]) == (0.712, "fifo")
    assert first.settings == replace(OPTIONS.settings, max_batch=first.settings.max_batch)


def test_the_three_files_are_written_and_name_the_machine_and_the_load(tmp_path: Path) -> None:
    page = publish(tmp_path, SCENARIO, [RUN], LatencyParams(0.02, 0.004, 0.003, 0.001))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.png"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["strategies"]["sponge"]["missed"] == 3
    text = page.read_text(encoding="utf-8")
    assert "<h1>sponge missed 50.0 % of the deadlines with 0.70 cores</h1>" in text
    assert report["machine"]["cpu"] in text
    assert "2 photographs are sent in 5 s" in text
    assert "20.0·b/c + 4.0·b + 3.0/c + 1.0 ms" in text


@pytest.mark.parametrize(("late_s", "warns"), [(0.004, False), (0.030, True)])
def test_a_generator_that_was_itself_late_is_said_to_be(late_s: float, warns: bool) -> None:
    outcomes = tuple(replace(outcome, lag_s=late_s) for outcome in RUN.outcomes)
    text = lag_text([RUN, StrategyRun("fifo", 5.0, outcomes, RUN.cores)])
    assert f"99 of 100 requests left no more than {1000 * late_s:.1f} ms after the time planned" in text
    assert ("too busy" in text) == warns


@pytest.mark.parametrize(
    "argv",
    [
        ["--server", "/nowhere"],
        ["--slo", "soon"],
        ["--slo", "0"],
        ["--seconds", "0"],
        ["--rate", "-1"],
        ["--rate", "nan"],
        ["--profile-seconds", "0"],
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(argv: list[str], tmp_path: Path) -> None:
    server = Path(__file__).parents[3] / "examples" / "ocr-server"
    with pytest.raises(SettingError):
        main(["--server", str(server), "--out", str(tmp_path), *argv])
    assert list(tmp_path.iterdir()) == []
