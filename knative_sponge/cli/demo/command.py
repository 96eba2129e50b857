"""`sponge demo`: a text detector under a surging load, served in four ways on this machine. It parses, runs and shows.

Steps: profile the model server; choose a load that this machine can just serve; run one strategy after another on that
same load; publish.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import BinaryIO, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from knative_sponge.cli.demo.bare_server import bare_server
from knative_sponge.cli.demo.publish import curve_text, lag_text, publish, scenario_text
from knative_sponge.cli.demo.report import StrategyRun, summarize
from knative_sponge.cli.demo.scenario import Scenario, cores_for_server, make_scenario
from knative_sponge.cli.demo.strategy import SPONGE, Strategy, fifo, perform, static_max, static_mean
from knative_sponge.cli.demo.table import terminal_table
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import to_json
from knative_sponge.core.quantity import parse_duration_s
from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.cfs_quota import DEFAULT_PERIOD_S
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.process import Sink
from knative_sponge.profile.arrivals import ArrivalKind
from knative_sponge.profile.inputs import image_call, pictures
from knative_sponge.profile.load import Outcome
from knative_sponge.profile.measure import measure
from knative_sponge.profile.trace import TraceKind
from knative_sponge.settings import ServingSettings

_PATH: Final = "/v2/models/ocr/infer"
_HOOK: Final = "/cpu"
_PROFILE_ROWS: Final = (1, 2, 4, 8)
_PROFILE_SHARES: Final = (0.2, 0.45, 1.0)
"""Sizes to measure, as shares of the most cores."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The flags of a demo. server: folder that Python can run. slo_s, rate: None takes what fits this machine."""

    server: Path
    out: Path
    seconds: int
    profile_s: float
    seed: int
    arrival: ArrivalKind
    trace: TraceKind
    slo_s: float | None
    rate: float | None


def main(argv: Sequence[str]) -> int:
    """The verb; returns the exit status. Raises SpongeError."""
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "programs.log", "wb") as log:
        asyncio.run(Demo(options, Console(), log).run())
    return 0


class Demo:
    """One demo, from profile to report. log: takes the output of the programs."""

    def __init__(self, options: DemoOptions, console: Console, log: BinaryIO) -> None:
        self._options = options
        self._console = console
        self._log: Sink = lambda data: _append(log, data)
        self._command = (sys.executable, str(options.server), "--port", "{port}")
        self._photos = [photo.jpeg for photo in pictures()]
        self._max_cores = cores_for_server(len(os.sched_getaffinity(0)))
        self._profile_file = options.out / "profile.json"

    async def run(self) -> None:
        """Run all steps, in order."""
        with self._progress() as progress:
            model = await self._profile(progress)
            scenario = self._choose(model)
            progress.console.print(scenario_text(scenario), highlight=False)
            ours = await self._perform(SPONGE, scenario, progress)
            mean_cores = summarize(ours).mean_cores
            others = (static_mean(mean_cores), fifo(mean_cores), static_max(scenario.max_cores))
            runs = [ours, *[await self._perform(strategy, scenario, progress) for strategy in others]]
        page = publish(self._options.out, scenario, runs, model.params)
        self._console.print()
        self._console.print(terminal_table({run.name: summarize(run) for run in runs}))
        self._console.print()
        self._console.print(lag_text(runs), highlight=False)
        self._console.print(f"pictures: {page} and {page.with_suffix('.png')}", highlight=False, soft_wrap=True)

    def _choose(self, model: LatencyModel) -> Scenario:
        options = self._options
        return make_scenario(
            model.params,
            max_cores=self._max_cores,
            max_batch=ServingSettings().max_batch,
            payloads=[len(image_call([photo]).content) for photo in self._photos],
            seconds=options.seconds,
            seed=options.seed,
            arrival=options.arrival,
            trace=options.trace,
            slo_s=options.slo_s,
            base_rate=options.rate,
        )

    async def _profile(self, progress: Progress) -> LatencyModel:
        """Measure batches of photographs on several sizes, fit the curve, and keep it in a file for the proxies."""
        photos = cycle(self._photos)
        task = progress.add_task("profile", total=1.0, note="")
        sizes = [share * self._max_cores for share in _PROFILE_SHARES]
        async with bare_server(
            self._command, _PATH, _HOOK, lambda rows: image_call(list(islice(photos, rows))), self._log
        ) as server:
            samples = await measure(
                server,
                _PROFILE_ROWS,
                sizes,
                budget_s=self._options.profile_s,
                progress=lambda share: progress.update(task, completed=share),
            )
        model = LatencyModel.fitted(samples, period_s=DEFAULT_PERIOD_S)
        self._profile_file.write_text(json.dumps(to_json(model)) + "\n")
        progress.update(task, completed=1.0, note=curve_text(model.params))
        return model

    async def _perform(self, strategy: Strategy, scenario: Scenario, progress: Progress) -> StrategyRun:
        task = progress.add_task(strategy.name, total=len(scenario.planned), note="")
        missed = 0

        def heard(outcome: Outcome) -> None:
            nonlocal missed
            missed += not outcome.met
            progress.update(task, advance=1, note=f"{missed} missed")

        options = LocalOptions(
            command=self._command,
            settings=ServingSettings(slo_s=scenario.slo_s, max_cores=scenario.max_cores, cpu_hook=_HOOK),
            profile=self._profile_file,
            env={"SPONGE_DRAIN_QUIET": "0"},  # no client is left when a run ends
            output=self._log,
        )
        bodies = [image_call([photo]) for photo in self._photos]
        run = await perform(strategy, options, scenario, path=_PATH, bodies=bodies, heard=heard)
        progress.update(task, note=f"{missed} missed, {summarize(run).mean_cores:.2f} cores")
        return run

    def _progress(self) -> Progress:
        """Progress bars, drawn only four times a second: the load needs the processor."""
        return Progress(
            TextColumn("{task.description:12}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            refresh_per_second=4,
        )


def _append(log: BinaryIO, data: bytes) -> None:
    log.write(data)
    log.flush()


def _parse(argv: Sequence[str]) -> DemoOptions:
    parser = argparse.ArgumentParser(prog="sponge demo", description="Compare four ways to serve a surging load.")
    add = parser.add_argument
    add("--server", type=Path, default=Path("examples/ocr-server"), help="folder of the example model server")
    add("--out", type=Path, default=Path("out/demo"), help="where the report is written (default: %(default)s)")
    add("--seconds", type=int, default=30, help="length of the load (default: %(default)s)")
    add("--profile-seconds", type=float, default=15.0, help="time spent measuring (default: %(default)g)")
    add("--seed", type=int, default=1, help="of load and network (default: %(default)s)")
    add("--arrivals", choices=[*ArrivalKind], default=ArrivalKind.POISSON, help="default: %(default)s")
    add("--trace", choices=[*TraceKind], default=TraceKind.QMAP, help="the 4G link (default: %(default)s)")
    add("--slo", help="from send to answer, such as 500ms (default: chosen for this machine)")
    add("--rate", type=float, help="steady requests/s (default: chosen for this machine)")
    args = parser.parse_args(_joined(argv))
    if not (args.server / "__main__.py").is_file():
        raise SettingError("server", str(args.server), "the folder examples/ocr-server of the source tree")
    if args.seconds < 1 or not args.profile_seconds > 0 or (args.rate is not None and not args.rate > 0):
        raise SettingError("seconds, profile-seconds, rate", "", "numbers above 0")
    return DemoOptions(
        server=args.server,
        out=args.out,
        seconds=args.seconds,
        profile_s=args.profile_seconds,
        seed=args.seed,
        arrival=ArrivalKind(args.arrivals),
        trace=TraceKind(args.trace),
        slo_s=None if args.slo is None else _duration_s(args.slo),
        rate=args.rate,
    )


def _joined(argv: Sequence[str]) -> list[str]:
    """`--slo -5ms` as one word: argparse takes a value that begins with a dash for a flag."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] == "--slo" and not word.startswith("--"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _duration_s(text: str) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise SettingError("slo", text, str(error)) from error
    if seconds <= 0:
        raise SettingError("slo", text, "a duration above zero")
    return seconds
