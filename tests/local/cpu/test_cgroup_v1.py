"""Cores by cfs_quota_us: against the kernel's rules played out in memory, then against the kernel."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.local.cpu.cgroup import KernelFiles, Owner, remove_group
from knative_sponge.local.cpu.cgroup_v1 import CgroupV1
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.cpu.mounts import Place, find_place
from knative_sponge.local.process import ChildTree
from tests.local.cpu.fake_kernel import FakeKernel
from tests.local.cpu.writable_groups import HAVE_V1, V1_CPU
from tests.local.waiting import until

ROOT = Path("/fake")
SIZES = st.floats(0.005, 4.0)
real = pytest.mark.skipif(not HAVE_V1, reason="needs the right to make cgroup v1 groups in the cpu hierarchy")


def fake(period_s: float = 0.02, bound: tuple[int, int] | None = None) -> tuple[FakeKernel, CgroupV1]:
    """A control whose own group is bounded by (quota_us, period_us)."""
    kernel = FakeKernel(1, ROOT)
    own = kernel.add(ROOT / "own")
    if bound is not None:
        kernel.write(own / "cpu.cfs_period_us", str(bound[1]))
        kernel.write(own / "cpu.cfs_quota_us", str(bound[0]))
    place = Place(1, ROOT, own)
    return kernel, CgroupV1(kernel, place, place, period_s, Owner.this_process())


@given(
    period_s=st.sampled_from([0.001, 0.01, 0.02, 0.1, 0.4, 1.0]),
    bound=st.none() | st.tuples(st.integers(5_000, 400_000), st.sampled_from([1_000, 10_000, 33_333, 100_000])),
    sizes=st.lists(SIZES, min_size=1, max_size=8),
)
def test_no_change_of_size_is_ever_refused_and_each_is_in_force(
    period_s: float, bound: tuple[int, int] | None, sizes: list[float]
) -> None:
    kernel, control = fake(period_s, bound)
    most = Fraction(10**9) if bound is None else Fraction(*bound)
    (group,) = (path for path in kernel.groups_ if path.parent.name == "own")
    for cores in sizes:
        in_force = control.apply(cores)
        assert kernel.cores(group) == Fraction(in_force).limit_denominator(2_000_000)
        assert abs(in_force - min(cores, float(most))) <= max(0.0011 * cores, 2e-6 / period_s)
        assert kernel.cores(group) <= most  # type: ignore[operator]


@given(sizes=st.lists(SIZES, min_size=2, max_size=6))
def test_no_moment_between_two_writes_gives_more_than_both_sizes(sizes: list[float]) -> None:
    kernel, control = fake()
    (group,) = (path for path in kernel.groups_ if path.parent.name == "own")
    seen: list[Fraction] = []
    write = kernel.write

    def watched(path: Path, text: str) -> None:
        write(path, text)
        seen.append(kernel.cores(group) or Fraction(0))

    kernel.write = watched  # type: ignore[method-assign]
    control.apply(sizes[0])
    for before, after in pairwise(sizes):
        seen.clear()
        control.apply(after)
        assert all(float(ratio) <= max(before, after) * 1.001 for ratio in seen)


def test_a_bound_above_is_the_limit_even_far_up() -> None:
    kernel = FakeKernel(1, ROOT)
    top = kernel.add(ROOT / "top")
    own = kernel.add(top / "own")
    kernel.write(top / "cpu.cfs_quota_us", "150000")
    control = CgroupV1(kernel, Place(1, ROOT, own), None, 0.02, Owner.this_process())
    assert control.limit_cores == 1.5
    assert control.apply(4.0) == 1.5


def test_usage_is_in_seconds() -> None:
    _, control = fake()
    assert control.usage_s() == 1.5


def test_a_refused_group_is_an_os_error_and_leaves_nothing() -> None:
    kernel = FakeKernel(1, ROOT)
    kernel.locked.add(ROOT)
    with pytest.raises(OSError, match="EACCES"):
        CgroupV1(kernel, Place(1, ROOT, ROOT), None, 0.02, Owner.this_process())
    assert set(kernel.groups_) == {ROOT}


@pytest.fixture
def bounded() -> Iterator[Place]:
    """A real own group, allowed 1.5 cores."""
    assert V1_CPU is not None
    own = V1_CPU.own / f"sponge-test-{os.getpid()}"
    own.mkdir()
    (own / "cpu.cfs_quota_us").write_text("150000")
    yield Place(1, V1_CPU.root, own)
    remove_group(KernelFiles(), own)


def make(place: Place) -> CgroupV1:
    cpuacct = find_place("cpuacct")
    return CgroupV1(KernelFiles(), place, cpuacct, 0.02, Owner.this_process())


@real
def test_the_kernel_takes_every_change_under_a_bounded_parent(bounded: Place) -> None:
    control = make(bounded)
    group = control.entry.joins[0].parent
    try:
        for cores in (1.5, 0.01, 1.5, 0.04, 0.03, 1.4999, 3.0, 0.3):
            in_force = control.apply(cores)
            quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            assert in_force == quota / period
            assert in_force == pytest.approx(min(cores, 1.5), rel=2e-3)
    finally:
        control.close()


@real
def test_a_tree_is_inside_before_its_own_code_runs_and_so_are_its_children(bounded: Place) -> None:
    async def main() -> None:
        control: CpuControl = make(bounded)
        control.apply(0.5)
        lines = b""

        def keep(data: bytes) -> None:
            nonlocal lines
            lines += data

        code = "import subprocess; subprocess.run(['cat', '/proc/self/cgroup'])"
        child = await ChildTree.start([sys.executable, "-c", code], env=os.environ, sink=keep, entry=control.entry)
        assert await child.wait() == 0
        name = control.entry.joins[0].parent.name
        mine = [line for line in lines.decode().splitlines() if line.endswith("/" + name)]
        assert {controller for line in mine for controller in line.split(":")[1].split(",")} >= {"cpu", "cpuacct"}
        control.close()

    asyncio.run(main())


def throttled(group: Path) -> bool:
    fields = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(fields["nr_throttled"]) > 0


@real
def test_a_busy_tree_is_throttled_and_what_it_used_is_counted(bounded: Place) -> None:
    async def main() -> None:
        control = make(bounded)
        control.apply(0.1)
        groups = [path.parent for path in control.entry.joins]
        child = await ChildTree.start(["sh", "-c", "while :; do :; done"], env={}, sink=print, entry=control.entry)
        try:
            await until(lambda: throttled(groups[0]) and control.usage_s() > 0.02, "throttled and counted")
        finally:
            child.kill()
            await child.wait()
        assert control.usage_s() > 0.02, "what an ended tree used stays counted"
        control.close()
        assert not any(path.exists() for path in groups)

    asyncio.run(main())
