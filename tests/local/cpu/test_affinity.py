"""Cores by CPU affinity, on real processes: every thread there is and every one that comes later."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from knative_sponge.local.cpu.affinity import Affinity
from knative_sponge.local.cpu.procfs import descendants, threads
from tests.local.guarded_tree import run_guarded
from tests.local.waiting import until

CPUS = sorted(os.sched_getaffinity(0))
needs_two = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")

THREAD = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
CHILD = f"import threading, time; {THREAD}; print('child', flush=True); time.sleep(60)"
BROOD = f"""
import os, subprocess, sys, threading, time
# A thread, a child with a thread, and a grandchild that daemonised itself away from both.
{THREAD}
subprocess.Popen([sys.executable, "-c", {CHILD!r}])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"daemon\\n")
        time.sleep(60)
    os._exit(0)
os.wait()
os.write(1, b"parent\\n")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
{THREAD}
subprocess.Popen(["sleep", "60"])
os.write(1, b"later\\n")
time.sleep(60)
"""


def bindings(guardian: int) -> list[frozenset[int]]:
    """The CPUs of every thread of the tree."""
    found = []
    for process in descendants(guardian):
        for thread in threads(process.pid):
            try:
                found.append(frozenset(os.sched_getaffinity(thread)))
            except ProcessLookupError:
                continue
    return found


@needs_two
def test_every_thread_of_every_descendant_is_bound_and_later_ones_too(tmp_path: Path) -> None:
    async def main() -> None:
        control = Affinity(CPUS)
        assert control.apply(2) == 2.0
        async with run_guarded([sys.executable, "-c", BROOD, str(tmp_path / "go")], entry=control.entry) as tree:
            control.attach(tree.guardian)
            await until(lambda: {"parent", "child", "daemon"} <= set(tree.last_lines().split()), "all are up")
            # Two threads, two of the child's, and the daemon.
            assert bindings(tree.guardian) == [frozenset(CPUS[-2:])] * 5

            assert control.apply(0.4) == 1.0
            assert bindings(tree.guardian) == [frozenset(CPUS[-1:])] * 5

            (tmp_path / "go").touch()
            await until(lambda: "later" in tree.last_lines(), "one thread and one process more")
            assert bindings(tree.guardian) == [frozenset(CPUS[-1:])] * 7

            assert control.apply(1.01) == 2.0
            assert bindings(tree.guardian) == [frozenset(CPUS[-2:])] * 7

    asyncio.run(main())


@needs_two
def test_a_tree_starts_at_the_size_applied_before() -> None:
    async def main() -> None:
        control = Affinity(CPUS)
        control.apply(1)
        async with run_guarded(["sh", "-c", "grep Cpus_allowed_list /proc/self/status"], entry=control.entry) as tree:
            assert await tree.wait() == 0
            assert tree.last_lines().split() == ["Cpus_allowed_list:", str(CPUS[-1])]

    asyncio.run(main())


@pytest.mark.parametrize(("wanted", "set_"), [(0.01, 1), (1.0, 1), (1.0000000001, 1), (1.1, 2), (3, 3), (99, 3)])
def test_sizes_are_whole_cores_within_what_there_is(wanted: float, set_: int) -> None:
    control = Affinity([4, 7, 9])
    assert control.apply(wanted) == float(set_)
    assert control.entry.cpus == frozenset([4, 7, 9][-set_:])
    assert control.limit_cores == 3.0


def test_no_cpus_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Affinity([])


def test_what_ended_descendants_used_stays_counted() -> None:
    async def main() -> None:
        control = Affinity(CPUS)
        burn = "import time\nwhile time.process_time() < 0.1: pass"
        # The burner is an orphan when it ends: only the guardian's waiting keeps its time.
        shell = f"({sys.executable} -c '{burn}' && echo done &) ; exec sleep 60"
        async with run_guarded(["sh", "-c", shell], entry=control.entry) as tree:
            control.attach(tree.guardian)
            await until(lambda: "done" in tree.last_lines(), "the burner is done")
            await until(lambda: len(list(descendants(tree.guardian))) == 1, "only sleep is left")
            assert control.usage_s() >= 0.09

    asyncio.run(main())
