"""Cores by cpu.max, against the v2 rules played out in memory: where a group may be made, and what it leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.local.cpu.cgroup import Owner
from knative_sponge.local.cpu.cgroup_v2 import CgroupV2
from knative_sponge.local.cpu.mounts import Place
from tests.local.cpu.fake_kernel import FakeKernel

ROOT = Path("/fake")
ME = os.getpid()
OTHER = 4_000_001


def machine() -> tuple[FakeKernel, Path]:
    """A desktop: root owns all but the user's own subtree, in which a shell's scope holds a shell and us."""
    kernel = FakeKernel(2, ROOT)
    kernel.groups_[ROOT]["cgroup.subtree_control"] = "cpu"
    kernel.locked.add(ROOT)
    user = kernel.add(ROOT / "user")
    scope = kernel.add(user / "shell.scope", f"{OTHER} {ME}")
    return kernel, scope


def make(kernel: FakeKernel, own: Path, period_s: float = 0.02) -> CgroupV2:
    return CgroupV2(kernel, Place(2, ROOT, own), period_s, Owner.this_process())


def group_of(control: CgroupV2) -> Path:
    return control.entry.joins[0].parent


def state(kernel: FakeKernel) -> dict[Path, tuple[set[str], str]]:
    """What a control must leave as it was found."""
    return {
        path: (set(group["cgroup.procs"].split()), group["cgroup.subtree_control"])
        for path, group in kernel.groups_.items()
    }


def test_beside_others_in_a_group_ours_is_made_below_the_nearest_ancestor_that_lets_us() -> None:
    kernel, scope = machine()
    control = make(kernel, scope)
    assert group_of(control).parent == scope.parent
    assert kernel.groups_[scope]["cgroup.procs"].split() == [str(OTHER), str(ME)], "nobody was moved"
    control.close()
    assert set(kernel.groups_) == {ROOT, ROOT / "user", scope}


def test_alone_in_a_delegated_group_we_step_into_a_leaf_and_back() -> None:
    kernel, scope = machine()
    kernel.groups_[scope]["cgroup.procs"] = str(ME)
    kernel.groups_[scope.parent]["cgroup.subtree_control"] = "cpu"
    before = state(kernel)
    control = make(kernel, scope)
    assert group_of(control).parent == scope
    assert kernel.groups_[scope]["cgroup.procs"].split() == []
    control.apply(0.3)
    control.close()
    assert state(kernel) == before


def test_on_the_machines_root_processes_do_not_matter() -> None:
    kernel = FakeKernel(2, ROOT)
    kernel.hold(ROOT, OTHER)
    kernel.hold(ROOT, ME)
    control = make(kernel, ROOT)
    assert group_of(control).parent == ROOT
    assert str(ME) in kernel.groups_[ROOT]["cgroup.procs"].split()


def test_the_root_of_a_namespace_that_holds_others_lets_nobody() -> None:
    kernel = FakeKernel(2, ROOT)
    kernel.machine_root = False
    kernel.hold(ROOT, OTHER)
    kernel.hold(ROOT, ME)
    with pytest.raises(OSError, match="other processes"):
        make(kernel, ROOT)
    assert set(kernel.groups_) == {ROOT}


def test_alone_at_the_root_of_a_namespace_we_step_into_a_leaf() -> None:
    kernel = FakeKernel(2, ROOT)
    kernel.machine_root = False
    kernel.hold(ROOT, ME)
    before = state(kernel)
    control = make(kernel, ROOT)
    assert control.apply(0.5) == 0.5
    control.close()
    assert state(kernel) == before


@pytest.mark.parametrize("alone", [True, False])
def test_where_nothing_is_allowed_nothing_is_left(alone: bool) -> None:
    kernel, scope = machine()
    if alone:
        kernel.groups_[scope]["cgroup.procs"] = str(ME)
    kernel.groups_[scope.parent]["cgroup.subtree_control"] = "cpu"
    kernel.locked |= {scope, scope.parent}
    before = state(kernel)
    with pytest.raises(OSError, match="EACCES"):
        make(kernel, scope)
    assert state(kernel) == before


def test_a_subtree_without_the_cpu_controller_is_passed_over_and_left_as_it_was() -> None:
    kernel, scope = machine()
    kernel.groups_[scope]["cgroup.procs"] = str(ME)
    kernel.groups_[ROOT]["cgroup.subtree_control"] = ""  # cpu reaches neither the user nor the scope
    before = state(kernel)
    with pytest.raises(OSError, match="not handed down"):
        make(kernel, scope)
    assert state(kernel) == before


@given(st.sampled_from([0.01, 0.02, 0.1]), st.lists(st.floats(0.005, 8.0), min_size=1, max_size=5))
def test_every_size_is_written_as_one_line_that_the_kernel_takes(period_s: float, sizes: list[float]) -> None:
    kernel, scope = machine()
    control = make(kernel, scope, period_s)
    for cores in sizes:
        in_force = control.apply(cores)
        quota, period = map(int, kernel.groups_[group_of(control)]["cpu.max"].split())
        assert in_force == quota / period == pytest.approx(cores, rel=1.1e-3)


def test_a_bound_above_is_the_limit() -> None:
    kernel, scope = machine()
    kernel.groups_[scope.parent]["cpu.max"] = "50000 100000"
    control = make(kernel, scope)
    assert control.limit_cores == 0.5
    assert control.apply(2.0) == 0.5


def test_usage_is_in_seconds() -> None:
    kernel, scope = machine()
    control = make(kernel, scope)
    assert control.usage_s() == 1.5
