"""Own groups: whose they are, and that they go, with everything in them, when their owner is gone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from knative_sponge.local.cpu.cgroup import KernelFiles, Owner, make_group, members, remove_group, sweep
from tests.local.cpu.fake_kernel import FakeKernel
from tests.local.cpu.writable_groups import HAVE_V1, HAVE_V2, V1_CPU, V2_ANY
from tests.local.waiting import alive, wait_until

PARENT = Path("/fake")


@pytest.fixture
def me() -> Owner:
    return Owner.this_process()


@pytest.fixture
def dead(me: Owner) -> Owner:
    """An owner that has ended: its pid is taken, if at all, by a process that started later."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return Owner(me.namespace, child.pid, me.started)


def hierarchies() -> Iterator[object]:
    for name, place, have in (("v1", V1_CPU, HAVE_V1), ("v2", V2_ANY, HAVE_V2)):
        skip = pytest.mark.skipif(not have, reason=f"needs the right to make cgroup {name} groups")
        yield pytest.param(place.own if place else None, id=name, marks=skip)


@pytest.fixture(params=hierarchies())
def hierarchy(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real group to make groups in, gone afterwards."""
    path: Path = request.param / f"sponge-test-{os.getpid()}"
    path.mkdir()
    yield path
    remove_group(KernelFiles(), path)


def test_a_live_owners_group_is_never_swept(me: Owner) -> None:
    kernel = FakeKernel(1, PARENT)
    mine = make_group(kernel, [PARENT], me)
    assert sweep(kernel, PARENT, me) == []
    assert mine[0] in kernel.groups_


def test_a_dead_owners_group_is_swept(me: Owner, dead: Owner) -> None:
    kernel = FakeKernel(1, PARENT)
    left = make_group(kernel, [PARENT], dead)
    assert sweep(kernel, PARENT, me) == left
    assert left[0] not in kernel.groups_


def test_a_pid_that_came_back_does_not_protect_a_dead_owners_group(me: Owner) -> None:
    kernel = FakeKernel(1, PARENT)
    left = make_group(kernel, [PARENT], replace(me, started=me.started - 1))
    assert sweep(kernel, PARENT, me) == left


def test_an_owner_in_another_pid_namespace_is_not_judged(me: Owner, dead: Owner) -> None:
    kernel = FakeKernel(1, PARENT)
    make_group(kernel, [PARENT], replace(dead, namespace=dead.namespace + 1))
    assert sweep(kernel, PARENT, me) == []


@pytest.mark.parametrize("name", ["sponge", "sponge-1-2-3", "user.slice", "sponge-1-2-3-4-owner", "xsponge-1-2-3-4"])
def test_groups_of_others_are_never_swept(me: Owner, name: str) -> None:
    kernel = FakeKernel(1, PARENT)
    kernel.add(PARENT / name)
    assert sweep(kernel, PARENT, me) == []


def test_one_process_can_own_several_groups(me: Owner) -> None:
    kernel = FakeKernel(1, PARENT)
    first, second = make_group(kernel, [PARENT], me), make_group(kernel, [PARENT], me)
    assert first != second


def test_groups_in_two_hierarchies_are_made_both_or_not_at_all(me: Owner) -> None:
    kernel = FakeKernel(1, PARENT)
    locked = kernel.add(PARENT / "locked")
    kernel.locked.add(locked)
    before = set(kernel.groups_)
    with pytest.raises(OSError, match="EACCES"):
        make_group(kernel, [PARENT, locked], me)
    assert set(kernel.groups_) == before


def test_a_number_taken_in_only_one_hierarchy_leaves_nothing_behind(me: Owner) -> None:
    kernel = FakeKernel(1, PARENT)
    one, two = kernel.add(PARENT / "one"), kernel.add(PARENT / "two")
    kernel.make(two / me.group_name(0))
    made = make_group(kernel, [one, two], me)
    assert made == [one / me.group_name(1), two / me.group_name(1)]
    assert kernel.groups(one) == [me.group_name(1)]


def test_removing_a_group_kills_what_is_in_it_and_in_groups_below(hierarchy: Path, me: Owner) -> None:
    files = KernelFiles()
    group = make_group(files, [hierarchy], me)[0]
    inner = group / "inner"
    inner.mkdir()
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    for path, sleeper in zip((group, inner), sleepers, strict=True):
        files.write(path / "cgroup.procs", str(sleeper.pid))
        assert members(files, path) == [sleeper.pid]
    remove_group(files, group)
    assert not group.exists()
    assert [sleeper.wait() for sleeper in sleepers] == [-signal.SIGKILL] * 2


def test_removing_a_group_that_is_gone_is_fine(hierarchy: Path) -> None:
    remove_group(KernelFiles(), hierarchy / "never was")


def test_the_next_start_ends_what_a_killed_owner_left_running(hierarchy: Path, me: Owner, dead: Owner) -> None:
    files = KernelFiles()
    group = make_group(files, [hierarchy], dead)[0]
    sleeper = subprocess.Popen(["sleep", "60"])
    files.write(group / "cgroup.procs", str(sleeper.pid))
    assert sweep(files, hierarchy, me) == [group]
    wait_until(lambda: not alive(sleeper.pid), "the leftover process is killed")
    assert sleeper.wait() == -signal.SIGKILL
    assert not group.exists()


def test_a_refused_write_is_reported_by_the_write(hierarchy: Path) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011
        KernelFiles().write(hierarchy / "cgroup.procs", "not a pid")
    assert refused.value.errno == errno.EINVAL
