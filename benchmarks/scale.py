"""What the autoscaler costs on a large cluster: CPU, memory, and how soon a size follows a want.

    python -m benchmarks.scale [--pods 2000] [--nodes 200] [--seconds 60] [--runs 3] [--share 0.05]

One process is the cluster (`benchmarks.fake_cluster`): an API server over HTTP, kubelets that apply a size 100 ms after its
patch, and a proxy for each pod that sends its demand every second. The other process is the whole controller, as leader. It is
measured while no want changes (*steady*), then while each second a share of the pods change their want by a factor of two
(*changing*). CPU is CPU time over wall time, so other load on the machine disturbs only the waits. A wait is the time from a
demand line that wants more cores to the patch that gives them, as the fake cluster sees both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")
_CONNECT_S = 120.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used until now. cpu_s: user and system. rss, peak: MiB."""

    cpu_s: float
    rss: float
    peak: float


def usage(pid: int) -> Usage:
    """The usage of a process; zero when it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        memory = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    except FileNotFoundError:
        return Usage(0.0, 0.0, 0.0)
    rss, peak = (int(memory.get(name, "0 kB").split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return Usage((int(stat[11]) + int(stat[12])) / _TICKS, rss, peak)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, file.read_text().split())
    return found


class Cluster:
    """The fake cluster's process."""

    def __init__(self, options: Mapping[str, object]) -> None:
        command = [sys.executable, "-m", "benchmarks.fake_cluster"]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self.api_port, self.proxies_port = map(int, self._out.readline().split())

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def tell(self, words: str) -> None:
        """Send one command."""
        assert self._process.stdin is not None
        self._process.stdin.write(words.encode() + b"\n")
        self._process.stdin.flush()

    def take(self) -> Any:
        """What the cluster saw since the last call."""
        self.tell("take")
        return msgspec.json.decode(self._out.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(cluster: Cluster, pid: int, seconds: float, share: float, settle_s: float) -> dict[str, str]:
    """One row of the table: what the controller did and used in so many seconds."""
    cluster.tell(f"share {share}")
    time.sleep(settle_s)
    cluster.take()
    begun_s, before, solver = time.monotonic(), usage(pid), sum(usage(child).cpu_s for child in children(pid))
    time.sleep(seconds)
    took_s, after, taken = time.monotonic() - begun_s, usage(pid), cluster.take()
    seen = taken["seen"]
    solvers = [usage(child) for child in children(pid)]
    counts = seen["counts"]
    return {
        "what": "changing" if share else "steady",
        "cores": f"{(after.cpu_s - before.cpu_s) / took_s:.3f}",
        "MiB": f"{after.rss:.0f}",
        "peak": f"{after.peak:.0f}",
        "solver cores": f"{(sum(each.cpu_s for each in solvers) - solver) / took_s:.3f}" if solvers else "-",
        "MiB ": f"{sum(each.rss for each in solvers):.0f}" if solvers else "-",
        "lines/s": f"{counts.get('lines', 0) / took_s:.0f}",
        "changes/s": f"{counts.get('changes', 0) / took_s:.1f}",
        "patches/s": f"{counts.get('patches', 0) / took_s:.1f}",
        "least gap": f"{min(seen['gaps']):.2f}" if seen["gaps"] else "-",
        "events/s": f"{taken['writes'].get('POST events', 0) / took_s:.1f}",
        "wait p50 p95 max (n)": _waits(seen["waits"]),
        "short: p50 p95 max (n)": _waits(seen["short"]),
    }


def _waits(waits: Sequence[float]) -> str:
    if len(waits) < 20:
        return f"- ({len(waits)})"
    ordered = sorted(waits)
    p95 = ordered[int(0.95 * len(ordered))]
    return f"{statistics.median(ordered):.3f} {p95:.3f} {ordered[-1]:.3f} ({len(ordered)})"


def run(options: argparse.Namespace) -> list[dict[str, str]]:
    """Both rows of one run."""
    shape = {name: getattr(options, name) for name in ("nodes", "pods", "revisions", "foreign", "hybrid")}
    cluster = Cluster(shape)
    log = open(options.log, "a") if options.log else None  # noqa: SIM115 - closed below
    ports = [str(cluster.api_port), str(cluster.proxies_port)]
    controller = subprocess.Popen([sys.executable, "-m", "benchmarks.fake_cluster.controller", *ports], stderr=log)
    try:
        give_up_s = time.monotonic() + _CONNECT_S
        while cluster.take()["streams"] < options.pods:
            if time.monotonic() > give_up_s or controller.poll() is not None:
                raise SystemExit("the controller does not listen to all proxies")
            time.sleep(0.5)
        return [
            measure(cluster, controller.pid, options.seconds, share, options.settle) for share in (0.0, options.share)
        ]
    finally:
        controller.terminate()
        controller.wait()
        cluster.close()
        if log is not None:
            log.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("nodes", 200), ("pods", 2000), ("revisions", 200), ("foreign", 1000), ("runs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--hybrid", type=int, default=10, help="one revision in so many changes its number of pods")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--settle", type=float, default=15.0, help="seconds before each measurement")
    parser.add_argument("--share", type=float, default=0.05, help="of the pods that change their want, per second")
    parser.add_argument("--log", default=os.devnull, help="file for the controller's log")
    options = parser.parse_args()
    rows = [row for _ in range(options.runs) for row in run(options)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    print("  ".join(name.rjust(width) for name, width in widths.items()))
    for row in rows:
        print("  ".join(row[name].rjust(width) for name, width in widths.items()))


if __name__ == "__main__":
    main()
