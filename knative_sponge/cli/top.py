"""`sponge top`: the cores, wants and misses of every revision, by the leading autoscaler. It reads and changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from knative_sponge.cli.cluster_flags import add_flags
from knative_sponge.cli.columns import columns
from knative_sponge.cli.leader import leader
from knative_sponge.controller.reporting.rows import BoardError, NodeRow, Overview, PodRow, RevisionRow
from knative_sponge.controller.reporting.why import stale
from knative_sponge.errors import KubeError

HEAD: Final = ("NAMESPACE", "REVISION", "PODS", "CORES", "WANT", "QUEUE", "SLACK", "RATE", "MISSED", "STATE")
_LEFT: Final = 2
_PERIOD_S: Final = 1.0
_OLD_S: Final = 5.0
"""The leader publishes several times a second. An overview that is older than this is one that it cannot renew."""
_STYLES: Final = {"steady": "", "at zero": "dim", "resizing": "cyan", "starting": "cyan"}
_TROUBLE: Final = "bold red"

Look = Callable[[], Awaitable[Overview]]
Show = Callable[[Overview | None, str], None]


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status. With --once it raises KubeError and BoardError when the look fails."""
    args = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(args))
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe; the flush at exit must not fail on it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _run(args: argparse.Namespace) -> int:
    async with leader(args.kubeconfig, args.context) as found:
        if args.json:
            await watch(found.overview, lambda overview, error: _json(overview, error, args.namespace), once=args.once)
        elif args.once or not sys.stdout.isatty():
            await watch(found.overview, lambda overview, error: _plain(overview, error, args.namespace), once=args.once)
        else:
            with Live(console=Console(), screen=True, auto_refresh=False) as live:

                def show(overview: Overview | None, error: str) -> None:
                    live.update(screen(overview, error, args.namespace), refresh=True)

                await watch(found.overview, show, once=False)
    return 0


async def watch(look: Look, show: Show, *, once: bool, period_s: float = _PERIOD_S) -> None:
    """Fetch and show overviews, again and again.

    look: fetches one. show: gets the last overview, and the error text when this look failed. once: look once, and raise its
    error.
    """
    latest: Overview | None = None
    while True:
        error = ""
        try:
            latest = await look()
        except (KubeError, BoardError) as failure:
            if once:
                raise
            error = str(failure)
        show(latest, error)
        if once:
            return
        await asyncio.sleep(period_s)


def table(overview: Overview, namespace: str | None = None) -> list[tuple[str, ...]]:
    """A row of cells for every revision, in the order of `HEAD`; rows are sorted by namespace and name."""
    chosen = [row for row in overview.revisions if namespace in (None, row.namespace)]
    return [_cells(row, overview) for row in sorted(chosen, key=lambda row: (row.namespace, row.name))]


def state(revision: RevisionRow, node: Callable[[str], NodeRow | None]) -> str:
    """The revision's most important state, in one or two words."""
    pods = revision.pods
    if not pods:
        return "starting" if revision.wanted_pods else "at zero"
    if any(stale(pod) for pod in pods):
        return "no news"
    phases = {pod.phase for pod in pods}
    for phase in ("error", "infeasible", "deferred"):
        if phase in phases:
            return phase
    if any(_short(pod, node(pod.node)) for pod in pods):
        return "short"
    return "steady" if phases == {"steady"} else "resizing"


def screen(overview: Overview | None, error: str, namespace: str | None) -> Group:
    """The terminal's screen: the table, and remarks on what is wrong with it."""
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, title in enumerate(HEAD):
        left = index < _LEFT or index == len(HEAD) - 1
        shown.add_column(title, justify="left" if left else "right", no_wrap=True)
    if overview is not None:
        for cells in table(overview, namespace):
            *others, word = cells
            shown.add_row(*map(Text, others), Text(word, style=_STYLES.get(word, _TROUBLE)))
    return Group(shown, *(Text(line, style=_TROUBLE) for line in _remarks(overview, error)))


def _json(overview: Overview | None, error: str, namespace: str | None) -> None:
    """Print one document a line; errors go to standard error."""
    if error or overview is None:
        print(error, file=sys.stderr, flush=True)
        return
    chosen = tuple(row for row in overview.revisions if namespace in (None, row.namespace))
    print(Overview(overview.age_s, chosen, overview.nodes).to_json().decode(), flush=True)


def _plain(overview: Overview | None, error: str, namespace: str | None) -> None:
    if not error and overview is not None:
        print("\n".join(columns([HEAD, *table(overview, namespace)], _LEFT)), flush=True)
    for line in _remarks(overview, error):
        print(line, file=sys.stderr, flush=True)


def _remarks(overview: Overview | None, error: str) -> list[str]:
    remarks = [error] if error else []
    if overview is not None and overview.age_s > _OLD_S:
        remarks.append(f"the leader has not renewed this for {overview.age_s:.0f} s")
    return remarks


def _cells(revision: RevisionRow, overview: Overview) -> tuple[str, ...]:
    pods = revision.pods
    slacks = [pod.slack_s for pod in pods if pod.slack_s is not None]
    met, missed = sum(pod.met for pod in pods), sum(pod.missed for pod in pods)
    return (
        revision.namespace,
        revision.name,
        f"{len(pods)}/{revision.wanted_pods}",
        f"{sum(pod.cores for pod in pods):.2f}",
        f"{sum(pod.want for pod in pods):.2f}",
        str(sum(pod.queued for pod in pods)),
        f"{1000 * min(slacks):.0f}ms" if slacks else "-",
        f"{sum(pod.rate for pod in pods):.1f}/s",
        f"{100 * missed / (met + missed):.2f}%" if met + missed else "-",
        state(revision, overview.node),
    )


def _short(pod: PodRow, node: NodeRow | None) -> bool:
    return node is not None and node.short and pod.target < pod.want


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sponge top",
        description="What every revision has, wants and misses, renewed every second.",
        epilog=(
            "WANT: the least cores that lose no more than the most would. QUEUE: rows that wait. SLACK: what 95 % of "
            "requests have left at least when they arrive, the least of all pods. MISSED: of all requests since the pods "
            "started. `sponge explain REVISION` says why."
        ),
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--namespace", metavar="NAME", help="only this namespace (default: all)")
    parser.add_argument("--once", action="store_true", help="one look, then end")
    parser.add_argument("--json", action="store_true", help="everything that is known, one JSON document a look")
    add_flags(parser)
    return parser
