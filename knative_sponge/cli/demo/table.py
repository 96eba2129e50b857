"""The demo's figures as text, the same on the terminal and in the page. It computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from rich.table import Table

from knative_sponge.cli.demo.report import Summary


class Column(NamedTuple):
    """title: the column's head. meaning: one line that explains the column. show: the cell's text."""

    title: str
    meaning: str
    show: Callable[[Summary], str]


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.0f} ms"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


COLUMNS: Final = (
    Column("missed", "no answer by the request's own deadline", lambda one: f"{100 * one.missed_share:.1f} %"),
    Column("of sent", "missed requests of all", lambda one: f"{one.missed}/{one.requests}"),
    Column("refused", "told early that they could not be served in time", lambda one: str(one.dropped)),
    Column("cores", "mean allocated to the model server over the load", lambda one: f"{one.mean_cores:.2f}"),
    Column("core-s", "the same, in core-seconds", lambda one: f"{one.core_seconds:.1f}"),
    Column("p50", "from the client's send, network included, to the answer", lambda one: _milliseconds(one.p50_s)),
    Column("p99", "of the requests the model answered, late ones included", lambda one: _milliseconds(one.p99_s)),
    Column("batch", "mean rows per call of the model server", lambda one: _number(one.mean_batch)),
)
EXPLAINED: Final = {
    "sponge": "earliest deadline first, batches sized by slack, cores resized in place",
    "static-mean": "the same queue and batches, cores fixed at the mean that sponge used",
    "fifo": "first come, first served, fixed batch and timeout (as MLServer and KServe batch), those mean cores",
    "static-max": "the same queue and batches as sponge, cores fixed at the most",
}


def terminal_table(summaries: Mapping[str, Summary]) -> Table:
    """The result for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("strategy", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column.title, justify="right", no_wrap=True)
    for name, one in summaries.items():
        table.add_row(name, *(column.show(one) for column in COLUMNS), style="bold" if name == "sponge" else "")
    return table
