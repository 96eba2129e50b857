"""Guards one child process tree so that none of it outlives the runner; decides nothing, knows no HTTP and no cgroup rules.

It runs as a file, `python -I -S guardian.py [--join FILE]... [--cpus 0,1] -- COMMAND...`, and imports only the standard
library: it must start fast and must not depend on where the package is installed.

The guardian is the tree's subreaper, so a double-forked daemon is still below it. Its standard input is a pipe from the
runner. `T` asks the tree to end: SIGTERM goes to the command's process group. `K` kills everything, and so does the end of
the pipe, which comes however the runner dies, SIGKILL included. When the command itself ends, the guardian kills all that
it left behind and exits with its status (128 + signal, as shells do).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_DEADLINE_S = 10.0
_LONGEST_FIRST_LINE = 256
_NOT_HELD, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _become(command: list[str], joins: list[str], cpus: set[int], guardian: int) -> None:
    """In the forked child: enter the groups, then exec. So the command is inside them from its first instruction."""
    status = _NOT_HELD
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:  # the guardian died before the line above
            return
        for path in joins:
            with open(path, "w") as file:
                file.write("0")
        if cpus:
            os.sched_setaffinity(0, cpus)
        # Python ignores the first two. Shells ignore the third for commands started with `&`. The command expects the defaults.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = _NOT_EXECUTABLE
        os.execvp(command[0], command)
    except OSError as error:
        what, why = f"cannot start {command[0]!r}", error.strerror
        if status == _NOT_HELD:
            what = f"cannot enter {error.filename}"
        elif interpreter := _interpreter(command[0]):
            # The kernel names neither of them, but the fault is the interpreter's: the script may be executed.
            what = f"cannot start {interpreter}, the interpreter of {command[0]!r}"
        elif isinstance(error, FileNotFoundError):
            status = _NOT_FOUND
        elif error.errno == errno.ENOEXEC:
            why = f"{why}: neither a program nor a script that begins with #! and its interpreter"
        print(f"{what}: {why}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _interpreter(program: str) -> str:
    """What the first line of a script that may be executed says runs it; empty for anything else."""
    import shutil  # noqa: PLC0415  a guardian that has nothing to explain starts faster without it

    path = shutil.which(program)
    with contextlib.suppress(OSError, IndexError):
        if path is not None:
            with open(path, "rb") as file:
                first = file.readline(_LONGEST_FIRST_LINE)
            if first.startswith(b"#!"):
                return os.fsdecode(first[2:].split()[0])
    return ""


def _below(root: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parent = file.read().rpartition(b")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(name))
    front = [root]
    while front:
        front = [child for pid in front for child in children.pop(pid, ())]
        yield from front


class _Tree:
    """The command and everything below it."""

    def __init__(self, main: int) -> None:
        self.main = main
        self.status: int | None = None

    def reap(self) -> bool:
        """Collect every process that has ended, adopted orphans too; False when no process is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main:
                self.status = status

    def terminate(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.main, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL everything until no child is left; give up after 10 s, when a process is stuck in the kernel."""
        deadline = time.monotonic() + _KILL_DEADLINE_S
        while self.reap() and time.monotonic() < deadline:
            for pid in _below(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)


def _parse(argv: list[str]) -> tuple[list[str], set[int], list[str]]:
    joins: list[str] = []
    cpus: set[int] = set()
    rest = iter(argv)
    for word in rest:
        if word == "--join":
            joins.append(next(rest))
        elif word == "--cpus":
            cpus = {int(cpu) for cpu in next(rest).split(",")}
        elif word == "--":
            break
    return joins, cpus, list(rest)


def _watch(tree: _Tree, wake: int) -> bool:
    """Wait until the command has ended or must be killed; True when the runner is gone."""
    while tree.reap() and tree.status is None:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready and any(number != signal.SIGCHLD for number in os.read(wake, 512)):
            tree.terminate()
        if 0 in ready:
            orders = os.read(0, 512)
            if not orders or b"K" in orders:
                return not orders
            tree.terminate()
    return False


def main(argv: list[str]) -> int:
    joins, cpus, command = _parse(argv)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _become(command, joins, cpus, guardian)
    with contextlib.suppress(OSError):  # parent and child both do it, as either may run first
        os.setpgid(child, child)
    tree = _Tree(child)
    abandoned = _watch(tree, wake)
    tree.kill()
    if abandoned:
        for path in joins:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))
    if tree.status is None:
        return 128 + signal.SIGKILL
    code = os.waitstatus_to_exitcode(tree.status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
