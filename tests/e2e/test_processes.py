"""The bare cluster's processes, with real ones: found after a crash, reported when they end, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster.bare import network, process
from e2e.cluster.bare.process import Processes, kill_group, strays
from e2e.cluster.provider import ClusterError
from e2e.cluster.waiting import wait_for
from tests.e2e.recorder import Recorder, failing

# The cluster outlives the program that makes it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run directory; what is started for it runs here, not in the cluster's network."""
    monkeypatch.setattr(process, "inside", lambda *args: [str(arg) for arg in args])
    run = tmp_path / "run"
    run.mkdir()
    yield run
    for pid in strays(run):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def script(directory: Path) -> Callable[[str], list[str]]:
    """A shell script in the run directory, as a command; its command line names the directory, as the node's own do."""

    def write(text: str) -> list[str]:
        file = directory / f"script{len(list(directory.glob('script*')))}"
        file.write_text(text)
        return ["sh", str(file)]

    return write


Script = Callable[[str], list[str]]
FOREVER = "echo started\nwhile :; do sleep 0.05; done\n"
ASKED = f"trap 'echo asked; exit 0' TERM\n{FOREVER}"
DEAF = f"trap '' TERM\n{FOREVER}"


def start(processes: Processes, name: str, command: list[str]) -> int:
    """Returns its pid once it has said that it started."""
    processes.start(name, command)
    wait_for(name, lambda: "started" in processes.log(name).read_text(), timeout_s=30, every_s=0.01)
    return int((processes.log(name).parent.parent / "pids" / name).read_text())


def lives(pid: int) -> bool:
    return process._alive(pid)


def test_what_was_started_is_found_by_whoever_looks_into_the_directory(directory: Path, script: Script) -> None:
    pid = start(Processes(directory), "etcd", script(FOREVER))
    later = Processes(directory)
    later.check()
    assert later.running()
    assert os.getpgid(pid) == pid
    later.kill()
    assert not lives(pid)
    assert not later.running()


def test_the_end_of_a_process_is_reported_with_its_last_words(directory: Path, script: Script) -> None:
    processes = Processes(directory)
    start(processes, "kubelet", script(FOREVER))
    start(processes, "etcd", script("echo started; echo 'disk full' >&2; exit 1\n"))
    with pytest.raises(ClusterError, match=r"(?s)^etcd has ended\n--- etcd\.log\nstarted\ndisk full$"):
        wait_for("the end of etcd", lambda: False, timeout_s=30, alive=processes.check)
    assert not processes.running()
    processes.kill()


def test_a_directory_without_processes_is_not_running_and_has_nothing_to_kill(directory: Path) -> None:
    processes = Processes(directory)
    processes.check()
    assert not processes.running()
    processes.kill()
    Processes(directory / "absent").kill()


def test_the_newest_is_ended_first_and_only_the_kubelet_is_asked(
    directory: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(directory)
    names = ["etcd", "kube-apiserver", "kubelet"]
    pids = [start(processes, name, script(ASKED)) for name in names]
    for age, name in enumerate(names):
        os.utime(directory / "pids" / name, ns=(age, age))
    sent = []
    send = os.kill

    def recorded(pid: int, number: signal.Signals) -> None:
        sent.append((pid, number))
        send(pid, number)

    monkeypatch.setattr(os, "kill", recorded)
    processes.kill()
    assert sent[:3] == [(pids[2], signal.SIGTERM), (pids[1], signal.SIGKILL), (pids[0], signal.SIGKILL)]
    assert [processes.log(name).read_text() for name in names] == ["started\n", "started\n", "started\nasked\n"]
    assert not any(map(lives, pids))
    assert list((directory / "pids").iterdir()) == []


def test_a_kubelet_that_does_not_listen_is_ended_all_the_same(
    directory: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_STOP_S", 1.0)
    processes = Processes(directory)
    pid = start(processes, "kubelet", script(DEAF))
    processes.kill()
    assert not lives(pid)


def test_whatever_else_was_started_for_the_directory_is_ended_too_and_nothing_more(
    directory: Path, script: Script
) -> None:
    waiting = "import sys; sys.stdin.read()"
    neighbour = directory.with_name("run-of-another") / "file"
    with (
        subprocess.Popen([sys.executable, "-c", waiting, f"{directory}/shim"], stdin=subprocess.PIPE) as shim,
        subprocess.Popen([sys.executable, "-c", waiting, str(neighbour)], stdin=subprocess.PIPE) as other,
    ):
        # Between fork and exec a child still has its parent's command line.
        wait_for("the shim to be itself", lambda: strays(directory) == [shim.pid], timeout_s=30, every_s=0.01)
        Processes(directory).kill()
        assert shim.wait(30) == -signal.SIGKILL
        assert strays(directory) == []
        assert other.poll() is None


def test_processes_that_ended_long_ago_are_no_obstacle(directory: Path, script: Script) -> None:
    processes = Processes(directory)
    processes.start("etcd", script("exit 0\n"))
    wait_for("its end", lambda: not processes.running(), timeout_s=30, every_s=0.01)
    processes.kill()
    processes.kill()


def test_a_process_that_ended_but_was_not_buried_by_its_parent_is_no_more(directory: Path) -> None:
    code = "import os\nchild = os.fork()\nif not child: os._exit(0)\nprint(child, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = parent.stdout.readline().decode().strip()
        (directory / "pids").mkdir()
        (directory / "pids" / "etcd").write_text(child)
        wait_for("its end", lambda: not Processes(directory).running(), timeout_s=30, every_s=0.01)
        assert Path(f"/proc/{child}").exists()
        parent.kill()


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of our own."""
    root = Path("/sys/fs/cgroup")
    top = (root if (root / "cgroup.controllers").exists() else root / "cpu") / f"sponge-test-{os.getpid()}"
    try:
        top.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield top
    for found, _, _ in os.walk(top, topdown=False):
        os.rmdir(found)


def test_every_process_of_a_group_and_of_the_groups_below_it_is_ended(group: Path) -> None:
    inner = group / "pod" / "container"
    inner.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as outside, subprocess.Popen(["sleep", "600"]) as inside:
        (inner / "cgroup.procs").write_text(str(inside.pid))
        try:
            kill_group([group, group.with_name("absent")])
            assert inside.wait(30) == -signal.SIGKILL
            assert outside.poll() is None
            assert not group.exists()
        finally:
            outside.kill()
            inside.kill()


def test_the_nodes_processes_are_started_in_its_network() -> None:
    assert network.inside("etcd", Path("/x")) == ["nsenter", "--net=/run/netns/sponge-e2e", "--", "etcd", "/x"]


def test_every_address_is_of_the_range_for_tests() -> None:
    runner = Recorder()
    network.make(runner)
    addresses = {word for words in runner.words() for word in words if word[0].isdigit()}
    assert addresses
    assert all(address.startswith(("198.18.", "198.19.")) for address in addresses)


@pytest.mark.parametrize("message", ['Cannot find device "sponge-e2e0"', "No such file or directory"])
def test_a_network_that_is_not_there_is_removed_without_complaint(message: str) -> None:
    network.remove(Recorder(failing("delete", message)))


def test_a_network_that_cannot_be_removed_is_complained_of() -> None:
    with pytest.raises(ClusterError, match="Operation not permitted"):
        network.remove(Recorder(failing("netns", "Operation not permitted")))
