"""How long a 5 ms unit of CPU work takes under a CFS quota, by period: the figures behind `DEFAULT_PERIOD_S`.

It needs the right to make cgroups. A worker process does units of 5 ms CPU time (measured by its own CPU clock), first back
to back, then spaced at random to half of the quota. After that two workers share twice the quota. A line per (cores, period):

    python -m benchmarks.cfs_period [--seconds 5] [--workers 1 2]

Measured on 2 CPUs, kernel 6.18 (HZ=250), load average 0.1 to 2; milliseconds per unit back to back, range of the runs:

    workers  cores  period    p50       p99
       1      0.3      10      19      19-20
       1      0.3      20      19      20-34
       1      0.3     100       5      75-76
       1      0.5      10      10      11-12
       1      0.5      20     9-13     16-19
       1      0.5     100       5      55-57
       1      0.8      10       7       8-13
       1      0.8      20       5       9-13
       1      0.8     100       5        25
       2      0.6       5     9-17    22-300
       2      0.6      10    10-19    22-59
       2      0.6      20      18     21-34
       2      0.6      30    17-21    29-32
       2      0.6      50    11-13    30-42
       2      0.6     100       5        75

Throughput was 98 to 100 % of the quota at every period while the CPUs were free. 20 ms is the shortest period at which
two threads do not starve each other: the kernel deals quota to CPUs in slices of 5 ms (sched_cfs_bandwidth_slice_us).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence

from knative_sponge.local.cpu.choice import choose_control
from knative_sponge.local.process import ChildTree

UNIT_S = 0.005
CORES = (0.3, 0.5, 0.8)
PERIODS_S = (0.010, 0.020, 0.100)


def unit() -> float:
    """Burn 5 ms of CPU time; returns the wall seconds that it took."""
    begun, until = time.monotonic(), time.thread_time() + UNIT_S
    while time.thread_time() < until:
        pass
    return time.monotonic() - begun


def work(seconds: float, cores: float) -> tuple[list[float], list[float], float]:
    """Unit times back to back, unit times spaced, and units per second back to back."""
    begun, packed = time.monotonic(), []
    while time.monotonic() - begun < seconds:
        packed.append(unit())
    rate = len(packed) / (time.monotonic() - begun)
    rng, spaced, until = random.Random(1), [], time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(rng.expovariate(0.5 * cores / UNIT_S))
        spaced.append(unit())
    return packed, spaced, rate


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def measure(cores: float, period_s: float, seconds: float, workers: int) -> str:
    """One line of the table; `cores` are for all workers together."""
    choice = choose_control(period_s)
    if not choice.control.name.startswith("cgroup"):
        sys.exit(choice.reason)
    written = b""

    def keep(data: bytes) -> None:
        nonlocal written
        written += data

    control = choice.control
    control.apply(cores)
    share = str(cores / workers)
    argv = [sys.executable, "-m", "benchmarks.cfs_period", "--worker", share, "--seconds", str(seconds)]
    shell = ["sh", "-c", '"$@" & ' * (workers - 1) + '"$@"; wait', "sh", *argv]
    child = await ChildTree.start(shell, env=os.environ, sink=keep, entry=control.entry)
    try:
        if await child.wait() != 0:
            sys.exit(child.last_lines())
    finally:
        control.close()
    runs = [json.loads(line) for line in written.splitlines()]
    packed, spaced = (sorted(value for run in runs for value in run[name]) for name in ("packed", "spaced"))
    rate = sum(run["rate"] for run in runs)
    times = "  ".join(f"{quantile(values, share) * 1e3:7.1f}" for values in (packed, spaced) for share in (0.5, 0.99))
    return f"{cores:5.1f}  {period_s * 1e3:6.0f}  {times}  {rate:8.1f}  {rate * UNIT_S / cores:8.3f}"


async def table(seconds: float, workers: int) -> None:
    """Print all lines."""
    print(f"\n{workers} worker(s), {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}; milliseconds per unit")
    print("                    back to back            spaced")
    print("cores  period      p50      p99      p50      p99   units/s  of quota")
    for cores in CORES:
        for period_s in PERIODS_S:
            print(await measure(cores * workers, period_s, seconds, workers), flush=True)


def main() -> None:
    """Print the table, or be a worker of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--worker", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is None:
        for workers in args.workers:
            asyncio.run(table(args.seconds, workers))
    else:
        packed, spaced, rate = work(args.seconds, args.worker)
        print(json.dumps({"packed": packed, "spaced": spaced, "rate": rate}), flush=True)


if __name__ == "__main__":
    main()
