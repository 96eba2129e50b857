"""The node's own processes: started into the namespace with a log and a pid file each, found and killed after any crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from e2e.cluster.bare.network import inside
from e2e.cluster.provider import ClusterError
from e2e.cluster.waiting import tails, wait_for

_STOP_S = 10.0


class Processes:
    """Processes of one run directory. Their command lines name it, which is how strays are told."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pids = directory / "pids"
        self._logs = directory / "logs"

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self._logs / f"{name}.log"

    def start(self, name: str, args: Sequence[str | Path]) -> None:
        """Start one in a process group of its own."""
        self._pids.mkdir(exist_ok=True)
        self._logs.mkdir(exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                inside(*args),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._directory,
            )
        process.returncode = 0  # it outlives this program: nobody waits for it, and that is no mistake
        (self._pids / name).write_text(str(process.pid))
        words = self._directory / "commands" / name
        words.parent.mkdir(exist_ok=True)
        words.write_text(json.dumps([str(arg) for arg in args]))

    def stop(self, name: str) -> None:
        """Kill one, which stays among those that should run. Raises ClusterError."""
        pid = int((self._pids / name).read_text())
        _kill([pid], signal.SIGKILL)
        wait_for(f"{name} to end", lambda: not _alive(pid), timeout_s=_STOP_S)

    def again(self, name: str) -> None:
        """Start one anew as it was started."""
        self.start(name, json.loads((self._directory / "commands" / name).read_text()))

    def check(self) -> None:
        """Raises ClusterError when one that was started is no more."""
        for file in self._pid_files():
            if not _alive(int(file.read_text())):
                raise ClusterError(f"{file.name} has ended{tails([self.log(file.name)])}")

    def running(self) -> bool:
        """Whether there are any, all alive."""
        files = self._pid_files()
        return bool(files) and all(_alive(int(file.read_text())) for file in files)

    def kill(self) -> None:
        """End all of them, newest first, and whatever else was started for the run directory. Raises ClusterError."""
        for file in reversed(self._pid_files()):
            _kill([int(file.read_text())], signal.SIGTERM if file.name == "kubelet" else signal.SIGKILL)
            with contextlib.suppress(ClusterError):
                wait_for(f"{file.name} to end", lambda file=file: not _alive(int(file.read_text())), timeout_s=_STOP_S)  # type: ignore[misc]
            file.unlink()
        _until_gone(lambda: strays(self._directory), f"processes of {self._directory}")

    def _pid_files(self) -> list[Path]:
        if not self._pids.is_dir():
            return []
        return sorted(self._pids.iterdir(), key=lambda file: file.stat().st_mtime_ns)


def kill_group(directories: Iterable[Path]) -> None:
    """End every process of these cgroups and the groups below them, then remove the groups. Raises ClusterError."""
    tops = [top for top in directories if top.is_dir()]

    def members() -> list[int]:
        return [pid for top in tops for file in top.rglob("cgroup.procs") for pid in map(int, file.read_text().split())]

    _until_gone(members, "processes of pods")
    for top in tops:
        for directory, _, _ in os.walk(top, topdown=False):
            os.rmdir(directory)


def strays(directory: Path) -> list[int]:
    """Processes whose command line names the run directory, this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if f"{directory}/".encode() in words and (entry / "exe").exists():
                    found.append(int(entry.name))
    return found


def _until_gone(find: Callable[[], list[int]], what: str) -> None:
    def gone() -> bool:
        pids = find()
        _kill(pids, signal.SIGKILL)
        return not pids

    wait_for(f"the end of {what}", gone, timeout_s=_STOP_S, every_s=0.05)


def _kill(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _alive(pid: int) -> bool:
    """Whether a process lives; one of ours that has ended is buried."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
