"""`sponge explain`: why each pod of a revision has its size, in words and one small table. It reads and changes nothing."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from knative_sponge.cli.cluster_flags import add_flags
from knative_sponge.cli.columns import columns
from knative_sponge.cli.local_state import read_state
from knative_sponge.cli.sizing import AtSize, Sizing, headroom_share
from knative_sponge.controller.reporting.rows import NodeRow, Overview, PodRow, RevisionRow
from knative_sponge.controller.reporting.why import stale
from knative_sponge.core.quantity import format_duration
from knative_sponge.errors import SettingError

_HEAD: Final = ("CORES", "MISSED", "AT MOST", "ONE ROW", "BATCH", "")


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status. Raises SettingError when there is no such revision, KubeError, BoardError."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.state is not None:
        print(text(read_state(args.state), None))
        return 0
    if args.revision is None:
        parser.error("name a revision, or a local server by --state")
    overview = asyncio.run(_overview(args))
    for found in choose(overview, args.revision, args.namespace):
        print(text(found, overview))
    return 0


def choose(overview: Overview, name: str, namespace: str | None) -> list[RevisionRow]:
    """The revision of that name, or else all revisions of the Service of that name.

    Raises SettingError when there is none, or when several namespaces have one.
    """
    rows = [row for row in overview.revisions if namespace in (None, row.namespace)]
    found = [row for row in rows if row.name == name] or [row for row in rows if row.service == name]
    if not found:
        known = ", ".join(sorted(f"{row.namespace}/{row.name}" for row in rows)) or "none"
        raise SettingError("REVISION", name, f"a revision or Service with an SLO; there are: {known}")
    namespaces = sorted({row.namespace for row in found})
    if len(namespaces) > 1:
        raise SettingError("--namespace", namespace, f"one of {', '.join(namespaces)}, as each has {name}")
    return found


def text(revision: RevisionRow, overview: Overview | None) -> str:
    """All that is known of one revision. overview: None for a server without a cluster."""
    head = f"{revision.namespace}/{revision.name}: {'; '.join(_settings(revision))}"
    blocks = [[head, *filter(None, [revision.why])]]
    blocks += [
        list(_pod(Sizing(pod, revision), None if overview is None else overview.node(pod.node)))
        for pod in revision.pods
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _settings(revision: RevisionRow) -> Iterator[str]:
    if revision.slo_s is not None:
        yield f"slo {format_duration(revision.slo_s)}"
    yield f"priority {revision.priority}"
    most = "what the node can give" if revision.max_cores is None else f"{revision.max_cores:.4g}"
    yield f"{revision.min_cores:.4g} cores to {most}"
    yield f"scaling {revision.scaling}, {len(revision.pods)} of {revision.wanted_pods} pods"


def _pod(sizing: Sizing, node: NodeRow | None) -> Iterator[str]:
    pod = sizing.pod
    yield f"{pod.name} on {pod.node}" if pod.node else pod.name
    yield f"  size    {pod.cores:.4g} cores in force, {pod.want:.4g} wanted, {pod.target:.4g} given; resize {_resize(pod)}"
    left = "" if pod.slack_s is None else f", 95 % of requests arrive with {_ms(pod.slack_s)} or more left"
    yield f"  load    {pod.rate:.1f} rows/s, rows waiting: {pod.queued}, batches running: {pod.running}{left}"
    if pod.met + pod.missed:
        yield f"  missed  {pod.missed} of {pod.met + pod.missed} requests since the pod started"
    if stale(pod):
        age = "was ever heard" if pod.news_s is None else f"was heard for {pod.news_s:.0f} s"
        yield f"  news    none {age}: the pod keeps its size"
    if sizing.params is not None:
        yield f"  floor   {_floor(sizing)}"
    if node is not None:
        yield f"  node    {_node(pod, node)}"
    yield ""
    rows = [_HEAD, *(_row(sizing.at(cores), name) for cores, name in sizing.sizes().items())]
    yield from ("  " + line for line in columns(rows, left=0))


def _resize(pod: PodRow) -> str:
    return f"{pod.phase} ({pod.pending})" if pod.pending else pod.phase


def _floor(sizing: Sizing) -> str:
    cores, urgent = sizing.floor()
    rate = f"{sizing.pod.rate:.1f} rows/s with {100 * headroom_share():.0f} % to spare"
    if cores is None:
        return f"no number of cores serves {rate}, in batches of up to {sizing.revision.max_batch} rows"
    where = "" if urgent else ", though in batches too slow for the most urgent"
    return f"{cores:.3g} cores serve {rate}{where}"


def _node(pod: PodRow, node: NodeRow) -> str:
    given = f"{node.divided:.4g} of {node.capacity:.4g} given"
    start = f"{node.allocatable:.4g} cores, {node.reserved:.4g} of them others', {given}"
    if not node.short:
        return f"{start}; all {node.wanted:.4g} wanted fit"
    got = f"this pod {pod.target:.4g} of {pod.want:.4g}"
    return f"{start}; short of the {node.wanted:.4g} wanted: they go where they save most, {got}"


def _row(at: AtSize, name: str) -> tuple[str, ...]:
    return (
        f"{at.cores:.3f}",
        "-" if at.missed is None else f"{at.missed:.2f}/s",
        "-" if at.served is None else f"{at.served:.1f}/s",
        "-" if at.one_s is None else _ms(at.one_s),
        "-" if at.batch is None else str(at.batch),
        name,
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}ms" if abs(seconds) >= 0.01 else f"{1000 * seconds:.1f}ms"


async def _overview(args: argparse.Namespace) -> Overview:
    # A local server is explained on machines without the client of a cluster too.
    from knative_sponge.cli.leader import leader  # noqa: PLC0415

    async with leader(args.kubeconfig, args.context) as found:
        return await found.overview()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sponge explain",
        description="Why a revision has the cores it has, and what fewer or more would do.",
        epilog=(
            "The table: MISSED is what each size is expected to miss of queue and arrivals, as the pod told; AT MOST the "
            "rows it can serve; ONE ROW the time of a batch of one; BATCH the rows of the largest batch that the most "
            "urgent twentieth of requests leaves time for."
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "revision", nargs="?", metavar="REVISION", help="a revision, or a Service: all of its revisions"
    )
    parser.add_argument("-n", "--namespace", metavar="NAME", help="where it is (default: any, if that is clear)")
    parser.add_argument(
        "--state", metavar="URL", help="a server without cluster: the state address `sponge run` prints"
    )
    add_flags(parser)
    return parser
