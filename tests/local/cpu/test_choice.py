"""Which control is chosen, and what is said about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.choice import choose_control
from tests.local.cpu.fake_kernel import FakeKernel

ROOT = Path("/fake")
V1 = (f"32 31 0:29 / {ROOT} rw - cgroup cgroup rw,cpu,cpuacct\n", "1:cpu,cpuacct:/own\n")
V2 = (f"32 31 0:29 / {ROOT} rw - cgroup2 cgroup2 rw\n", "0::/own\n")


@pytest.fixture
def proc(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    mountinfo, cgroup = request.param
    (tmp_path / "mountinfo").write_text(mountinfo)
    (tmp_path / "cgroup").write_text(cgroup)
    return tmp_path


@pytest.mark.parametrize("proc", [V1], indirect=True)
def test_a_version_1_group_where_the_controller_is_there(proc: Path) -> None:
    kernel = FakeKernel(1, ROOT)
    kernel.add(ROOT / "own")
    choice = choose_control(0.02, proc=proc, files=kernel)
    assert choice.reason.startswith("cores set by cgroup v1 /fake/own/sponge-")
    assert choice.reason.endswith(", CFS period 20 ms")


@pytest.mark.parametrize("proc", [V2], indirect=True)
def test_a_version_2_group_where_the_controller_is_there(proc: Path) -> None:
    kernel = FakeKernel(2, ROOT)
    kernel.groups_[ROOT]["cgroup.subtree_control"] = "cpu"
    kernel.add(ROOT / "own", str(os.getpid()))
    choice = choose_control(0.02, proc=proc, files=kernel)
    assert choice.reason.startswith("cores set by cgroup v2 /fake/own/sponge-")


@pytest.mark.parametrize("proc", [V1, V2], indirect=True, ids=["v1", "v2"])
def test_affinity_where_no_group_may_be_made_and_it_says_why(proc: Path) -> None:
    kernel = FakeKernel(2 if "0::" in (proc / "cgroup").read_text() else 1, ROOT)
    own = kernel.add(ROOT / "own")
    kernel.locked |= {ROOT, own}
    choice = choose_control(0.02, proc=proc, files=kernel)
    assert choice.control.name == "CPU affinity"
    assert choice.control.granularity_cores == 1.0
    assert choice.control.limit_cores == len(os.sched_getaffinity(0))
    assert choice.reason.startswith("cores set by CPU affinity, whole cores only: no cgroup of our own (/fake/")
    assert "EACCES" in choice.reason
    assert ("systemd-run" in choice.reason) == (kernel.version == 2)


@pytest.mark.parametrize("proc", [("", "")], indirect=True)
def test_affinity_where_nothing_is_mounted(proc: Path) -> None:
    choice = choose_control(0.02, proc=proc, files=FakeKernel(1, ROOT))
    assert choice.reason == (
        "cores set by CPU affinity, whole cores only: no cgroup hierarchy with a cpu controller is mounted"
    )


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SettingError, match="platform: 'darwin' is not allowed; expected Linux"):
        choose_control()


def test_a_period_the_kernel_refuses_is_refused_before_anything_is_made() -> None:
    with pytest.raises(SettingError, match="cfs-period"):
        choose_control(2.0)
