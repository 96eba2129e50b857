"""Writes the demo's results: report.json, report.html, report.png. It runs nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from knative_sponge.cli.demo.figure import Picture
from knative_sponge.cli.demo.host import describe_machine, machine_line
from knative_sponge.cli.demo.page import render_page
from knative_sponge.cli.demo.report import StrategyRun, headline, summarize, to_json
from knative_sponge.cli.demo.scenario import SURGE, Scenario
from knative_sponge.cli.demo.strategy import FIFO_BATCH, FIFO_TIMEOUT
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.profile.load import lag_s

_TOO_LATE_S: Final = 0.010
"""A load generator that is later than this for over 1 % of the requests distorts the figures by its own delay."""


def publish(folder: Path, scenario: Scenario, runs: Sequence[StrategyRun], params: LatencyParams) -> Path:
    """Write the three files and return the page's path. params: the curve the load was chosen by."""
    machine = describe_machine()
    summaries = {run.name: summarize(run) for run in runs}
    picture = Picture(runs, list(summaries.values()), scenario.rates)
    (folder / "report.json").write_text(json.dumps(to_json(machine, summaries), indent=2) + "\n")
    (folder / "report.png").write_bytes(picture.png())
    page = folder / "report.html"
    page.write_text(
        render_page(
            title=headline(summaries),
            lead=[
                scenario_text(scenario),
                "Shaded: the surges. Every strategy gets the same requests at the same times.",
            ],
            summaries=summaries,
            picture=picture.svg(),
            notes=[
                "Missed: no answer of the model by the request's own deadline, by its client's clock.",
                "Cores are those allocated to the model server, counted over the length of the load.",
                f"fifo starts a batch at {FIFO_BATCH} images or when its oldest has waited {FIFO_TIMEOUT}.",
                f"Latency of a batch of b images on c cores, measured before: {curve_text(params)}.",
                lag_text(runs),
                machine_line(machine),
            ],
        ),
        encoding="utf-8",
    )
    return page


def scenario_text(scenario: Scenario) -> str:
    """The load in one sentence."""
    return (
        f"{len(scenario.planned)} photographs are sent in {scenario.seconds} s to a text detector over a 4G link "
        f"(synthetic, {scenario.trace}); each has {1000 * scenario.slo_s:g} ms from send to answer, network included. "
        f"The load ({scenario.arrival}) is {min(scenario.rates):.1f} requests/s and {SURGE:g} times that in surges; "
        f"the model server may have up to {scenario.max_cores:g} cores."
    )


def curve_text(params: LatencyParams) -> str:
    """The fitted curve with its numbers, in milliseconds."""
    gamma, delta, epsilon, eta = (
        f"{1000 * value:.1f}" for value in (params.gamma, params.delta, params.epsilon, params.eta)
    )
    return f"{gamma}·b/c + {delta}·b + {epsilon}/c + {eta} ms"


def lag_text(runs: Sequence[StrategyRun]) -> str:
    """A sentence on how late the load generator itself was, and whether that is too much."""
    p99_s = max(lag_s(run.outcomes, 0.99) for run in runs)
    text = f"In every run, 99 of 100 requests left no more than {1000 * p99_s:.1f} ms after the time planned for them."
    if p99_s > _TOO_LATE_S:
        text += f" More than {1000 * _TOO_LATE_S:g} ms is too late: the machine was too busy to take the figures at face value."
    return text
