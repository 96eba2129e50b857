"""Finding our own group in what /proc says, on texts as real machines show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from knative_sponge.local.cpu.mounts import Place, find_place

V1_JOINT = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V1_CPUACCT_ALONE = "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
V1_CPU_ALONE = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
V1_IN_DOCKER = "700 690 0:29 /docker/4f00 /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
V2_ONLY = "35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V2_BESIDE = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V2_SPACED = "35 24 0:30 / /mnt/a\\040b rw - cgroup2 none rw\n"
V2_OUTSIDE = "35 24 0:30 /../.. /sys/fs/cgroup rw - cgroup2 none rw\n"
ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "place"),
    [
        pytest.param(
            ROOT + V1_JOINT,
            "4:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/a.scope\n",
            (1, "/sys/fs/cgroup/cpu,cpuacct", "user.slice"),
            id="version 1",
        ),
        pytest.param(
            ROOT + V1_CPUACCT_ALONE + V1_CPU_ALONE + V2_BESIDE,
            "2:cpuacct:/b\n1:cpu:/a\n0::/c\n",
            (1, "/sys/fs/cgroup/cpu", "a"),
            id="hybrid, the cpu controller on version 1",
        ),
        pytest.param(
            ROOT + V1_CPUACCT_ALONE + V2_BESIDE,
            "2:cpuacct:/b\n0::/c/d\n",
            (2, "/sys/fs/cgroup/unified", "c/d"),
            id="hybrid, the cpu controller on version 2",
        ),
        pytest.param(
            ROOT + V2_ONLY,
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            (2, "/sys/fs/cgroup", "user.slice/user-1000.slice/session-3.scope"),
            id="version 2",
        ),
        pytest.param(ROOT + V2_ONLY, "0::/\n", (2, "/sys/fs/cgroup", ""), id="container with a namespace of its own"),
        pytest.param(
            ROOT + V1_IN_DOCKER,
            "4:cpu,cpuacct:/docker/4f00\n",
            (1, "/sys/fs/cgroup/cpu,cpuacct", ""),
            id="container that sees its path on the host",
        ),
        pytest.param(V2_SPACED, "0::/x\n", (2, "/mnt/a b", "x"), id="mount point with a space"),
        pytest.param(ROOT + V1_IN_DOCKER, "4:cpu,cpuacct:/elsewhere\n", None, id="own group outside what is mounted"),
        pytest.param(ROOT + V2_ONLY, "0::/../sibling\n", None, id="own group outside the namespace"),
        pytest.param(ROOT + V2_OUTSIDE, "0::/\n", None, id="mount from outside the namespace"),
        pytest.param(ROOT, "0::/x\n", None, id="nothing mounted"),
        pytest.param(ROOT, "", None, id="no cgroups at all"),
    ],
)
def test_the_place_is_in_the_hierarchy_that_holds_the_controller(
    tmp_path: Path, mountinfo: str, cgroup: str, place: tuple[int, str, str] | None
) -> None:
    (tmp_path / "mountinfo").write_text(mountinfo)
    (tmp_path / "cgroup").write_text(cgroup)
    expected = None if place is None else Place(place[0], Path(place[1]), Path(place[1]) / place[2])
    assert find_place("cpu", tmp_path) == expected


def test_this_machines_own_group_holds_this_process() -> None:
    place = find_place("cpu")
    if place is None:
        pytest.skip("no cgroup hierarchy is mounted")
    assert place.own.is_dir()
