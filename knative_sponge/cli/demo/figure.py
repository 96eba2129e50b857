"""The demo's picture: a column per strategy, a row per figure, the same axes across. It draws and computes nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from knative_sponge.cli.demo.report import StrategyRun, Summary, in_service, peaks, per_second

INK: Final = "#1f2430"
MUTED: Final = "#6b7280"
RULE: Final = "#dfe3ea"
SURGE: Final = "#f6f0e0"
PAPER: Final = "#ffffff"
LOAD: Final = "#8a94a6"
CORES: Final = "#2f6fde"
QUEUE: Final = "#7c5cd6"
MET: Final = "#2a9d78"
DROPPED: Final = "#e08e0b"
LATE: Final = "#d63a3a"

THEME: Final = {
    INK: "--ink", MUTED: "--muted", RULE: "--rule", SURGE: "--surge", PAPER: "--paper", LOAD: "--load",
    CORES: "--cores", QUEUE: "--queue", MET: "--met", DROPPED: "--dropped", LATE: "--late",
}  # fmt: skip
"""The CSS variable that replaces each colour when the picture is part of a page."""

_ROWS: Final = (
    ("load", "requests/s\nreaching it", 0.55),
    ("cores", "cores\nallocated", 0.9),
    ("queue", "waiting or\nbeing served", 0.9),
    ("slack", "slack left at\nthe answer, ms", 1.5),
    ("missed", "missed\nper second", 0.75),
)
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "svg.fonttype": "none",
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.w_pad": 0.08,
    "axes.facecolor": "none",
}


_MET: Final[dict[str, Any]] = {
    "color": MET,
    "marker": "o",
    "markersize": 2.8,
    "markeredgewidth": 0,
    "linestyle": "none",
}
_LATE: Final = {**_MET, "color": LATE}
_REFUSED: Final = {**_MET, "color": DROPPED, "marker": "x", "markersize": 3.8, "markeredgewidth": 1.1}


class Picture:
    """The drawn figure, ready to be written in two formats.

    runs: one per column, all under the same load. summaries: in the same order. rates: planned requests per second, one value
    for each second; surges are shaded.
    """

    def __init__(self, runs: Sequence[StrategyRun], summaries: Sequence[Summary], rates: Sequence[float]) -> None:
        if not runs:
            raise ValueError("nothing to draw")
        with mpl.rc_context(_STYLE):
            self._figure = _draw(runs, summaries, rates)

    def png(self) -> bytes:
        """The picture on white."""
        with mpl.rc_context(_STYLE):
            file = io.BytesIO()
            self._figure.savefig(file, format="png", dpi=150)
            return file.getvalue()

    def svg(self) -> str:
        """An `<svg>` element for a page that defines the variables of THEME; text stays text."""
        with mpl.rc_context(_STYLE):
            file = io.StringIO()
            self._figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        element = file.getvalue()
        element = element[element.index("<svg") :]
        element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
        for colour, variable in THEME.items():
            element = element.replace(colour, f"var({variable})")
        return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', element, count=1)


def _draw(runs: Sequence[StrategyRun], summaries: Sequence[Summary], rates: Sequence[float]) -> Figure:
    figure = Figure(figsize=(3.6 * len(runs) + 0.9, 8.8), layout="constrained")
    heights = [height for _, _, height in _ROWS]
    grid = figure.subplots(len(_ROWS), len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=heights)
    for column, (run, summary) in enumerate(zip(runs, summaries, strict=True)):
        axes = {name: grid[row][column] for row, (name, _, _) in enumerate(_ROWS)}
        for each in axes.values():
            _shade_surges(each, rates)
        _draw_load(axes["load"], run)
        _draw_cores(axes["cores"], run, summary)
        _draw_queue(axes["queue"], run)
        _draw_slack(axes["slack"], run)
        _draw_missed(axes["missed"], run)
        _head(axes["load"], run, summary)
        axes["missed"].set_xlabel("seconds")
    for row, (name, label, _) in enumerate(_ROWS):
        first = grid[row][0]
        first.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6, linespacing=1.35)
        if name != "slack":
            first.set_ylim(0, max(1.0, first.get_ylim()[1]))
    grid[0][0].set_xlim(0, runs[0].seconds)
    figure.align_ylabels(grid[:, 0])
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False, labelcolor=MUTED)
    return figure


def _head(axes: Axes, run: StrategyRun, summary: Summary) -> None:
    axes.set_title(run.name, loc="left", fontsize=13, fontweight="bold", pad=24)
    axes.annotate(
        f"{100 * summary.missed_share:.1f} % missed with {summary.mean_cores:.2f} cores on average",
        (0, 1), xytext=(0, 9), xycoords="axes fraction", textcoords="offset points", color=MUTED,
    )  # fmt: skip


def _shade_surges(axes: Axes, rates: Sequence[float]) -> None:
    second = 0
    for surging, group in groupby(rate > min(rates) for rate in rates):
        length = len(list(group))
        if surging:
            axes.axvspan(second, second + length, facecolor=SURGE, edgecolor="none", linewidth=0, zorder=0)
        second += length


def _draw_load(axes: Axes, run: StrategyRun) -> None:
    counts = per_second([outcome.planned.reaches_s for outcome in run.outcomes], round(run.seconds))
    axes.stairs(counts, range(len(counts) + 1), fill=True, color=LOAD, alpha=0.6)


def _draw_cores(axes: Axes, run: StrategyRun, summary: Summary) -> None:
    ends = [min(max(at, 0.0), run.seconds) for at, _ in run.cores] + [run.seconds]
    kept = [index for index in range(len(run.cores)) if ends[index + 1] > ends[index]]
    values = [run.cores[index][1] for index in kept]
    edges = [*(ends[index] for index in kept), run.seconds]
    axes.stairs(values, edges, fill=True, color=CORES, alpha=0.2)
    axes.stairs(values, edges, color=CORES, linewidth=1.3, baseline=None)
    axes.axhline(summary.mean_cores, color=CORES, linewidth=1, linestyle=(0, (4, 3)))


def _draw_queue(axes: Axes, run: StrategyRun) -> None:
    """The largest value in each tenth of a second: finer steps would only blacken the picture."""
    tenths = round(run.seconds * 10)
    counts = peaks(in_service(run.outcomes), tenths, 0.1)
    edges = [tenth / 10 for tenth in range(tenths + 1)]
    axes.stairs(counts, edges, fill=True, color=QUEUE, alpha=0.25)
    axes.stairs(counts, edges, color=QUEUE, linewidth=0.9, baseline=None)


def _draw_slack(axes: Axes, run: StrategyRun) -> None:
    """Slack of each answer. One that is later than twice its budget is drawn at the lower edge."""
    edge_ms = 1000 * max((outcome.planned.slo_s for outcome in run.outcomes), default=1.0)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
    for style, chosen in (
        (_MET, [outcome for outcome in run.outcomes if outcome.met]),
        (_LATE, [outcome for outcome in run.outcomes if not outcome.met and not outcome.refused]),
        (_REFUSED, [outcome for outcome in run.outcomes if outcome.refused]),
    ):
        times = [outcome.planned.at_s for outcome in chosen]
        axes.plot(times, [max(1000 * outcome.slack_s, -edge_ms) for outcome in chosen], **style)
    axes.set_ylim(-1.06 * edge_ms, 1.06 * edge_ms)


def _draw_missed(axes: Axes, run: StrategyRun) -> None:
    seconds = round(run.seconds)
    missed = [outcome for outcome in run.outcomes if not outcome.met]
    refused = per_second([outcome.planned.at_s for outcome in missed if outcome.refused], seconds)
    every = per_second([outcome.planned.at_s for outcome in missed], seconds)
    edges = range(seconds + 1)
    axes.stairs(every, edges, baseline=refused, fill=True, color=LATE)
    axes.stairs(refused, edges, fill=True, color=DROPPED)


def _legend() -> list[Artist]:
    return [
        Line2D([], [], label="answered in time", **_MET),
        Line2D([], [], label="answered late or never", **_LATE),
        Line2D([], [], label="refused at once", **_REFUSED),
        Line2D([], [], label="mean cores", color=CORES, linewidth=1, linestyle=(0, (4, 3))),
        Patch(label="surge", facecolor=SURGE),
    ]
