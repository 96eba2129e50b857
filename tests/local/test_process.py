"""A guarded process tree: what it says, how it ends, and that nothing of it outlives anybody."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from knative_sponge.local.cpu.cgroup import KernelFiles, Owner, make_group
from knative_sponge.local.cpu.control import Entry
from knative_sponge.local.cpu.procfs import descendants
from knative_sponge.local.process import ChildTree, ServiceError
from tests.local.cpu.writable_groups import HAVE_V1, V1_CPU
from tests.local.guarded_tree import run_guarded
from tests.local.waiting import alive, until, wait_until

PYTHON = sys.executable


def pids_below(tree: ChildTree) -> list[int]:
    return [process.pid for process in descendants(tree.guardian)]


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 0"], 0),
        (["sh", "-c", "exit 41"], 41),
        (["sh", "-c", "kill -SEGV $$"], 128 + signal.SIGSEGV),
        (["/no/such/program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_commands_status_is_passed_on_as_shells_do(command: list[str], status: int) -> None:
    async def main() -> None:
        async with run_guarded(command) as tree:
            assert await tree.wait() == status

    asyncio.run(main())


def test_a_command_that_cannot_be_started_says_why() -> None:
    async def main() -> None:
        async with run_guarded(["/no/such/program"]) as tree:
            await tree.wait()
            assert tree.last_lines() == "cannot start '/no/such/program': No such file or directory"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("first", "mode", "status", "words"),
    [
        (
            "#!/no/such/python",
            0o755,
            126,
            "cannot start /no/such/python, the interpreter of '{}': No such file or directory",
        ),
        ("#!/etc/passwd -u", 0o755, 126, "cannot start /etc/passwd, the interpreter of '{}': Permission denied"),
        ("#!/etc/passwd", 0o644, 126, "cannot start '{}': Permission denied"),
        (
            "echo no interpreter",
            0o755,
            126,
            "cannot start '{}': Exec format error: neither a program nor a script that",
        ),
    ],
)
def test_a_script_that_cannot_be_started_is_told_apart_from_its_interpreter(
    tmp_path: Path, first: str, mode: int, status: int, words: str
) -> None:
    script = tmp_path / "serve"
    script.write_text(first + "\n")
    script.chmod(mode)

    async def main() -> None:
        async with run_guarded([str(script)]) as tree:
            assert await tree.wait() == status
            assert tree.last_lines().startswith(words.format(script))

    asyncio.run(main())


def test_a_word_that_no_program_can_be_given_is_told() -> None:
    async def main() -> None:
        with pytest.raises(ServiceError, match="cannot start 'x': embedded null byte") as failed:
            await ChildTree.start(["x", "a\0b"], env=os.environ, sink=lambda _: None)
        assert failed.value.status == 126

    asyncio.run(main())


def test_a_group_that_cannot_be_entered_keeps_the_command_from_running(tmp_path: Path) -> None:
    async def main() -> None:
        entry = Entry(joins=(tmp_path / "no such group" / "cgroup.procs",))
        async with run_guarded(["touch", str(tmp_path / "ran")], entry) as tree:
            assert await tree.wait() == 125
            assert "cgroup.procs" in tree.last_lines()
        assert not (tmp_path / "ran").exists()

    asyncio.run(main())


def test_output_of_both_streams_arrives_in_order_and_its_end_is_kept() -> None:
    async def main() -> None:
        taken: list[bytes] = []
        script = "echo one; echo two >&2; for i in $(seq 2000); do echo $i; done"
        tree = await ChildTree.start(["sh", "-c", script], env=os.environ, sink=taken.append)
        assert await tree.wait() == 0
        lines = b"".join(taken).decode().splitlines()
        assert lines == ["one", "two", *map(str, range(1, 2001))]
        assert tree.last_lines(2) == "1999\n2000"

    asyncio.run(main())


def test_the_environment_is_what_was_given_and_not_the_runners() -> None:
    async def main() -> None:
        taken: list[bytes] = []
        tree = await ChildTree.start(["/usr/bin/env"], env={"ONLY": "this"}, sink=taken.append)
        assert await tree.wait() == 0
        names = {line.partition("=")[0] for line in b"".join(taken).decode().split()}
        assert names - {"LC_CTYPE"} == {"ONLY"}  # Python's own start sets the locale where none is (PEP 538)

    asyncio.run(main())


def test_a_command_keeps_the_limit_of_open_files_that_the_runner_was_started_with() -> None:
    """It may use select(2): only the proxy, a process of its own, raises its limit."""

    async def main() -> None:
        taken: list[bytes] = []
        tree = await ChildTree.start(["sh", "-c", "ulimit -Sn"], env=os.environ, sink=taken.append)
        assert await tree.wait() == 0
        assert int(b"".join(taken)) == 200

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        asyncio.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_command_sees_default_signals_and_no_input() -> None:
    async def main() -> None:
        async with run_guarded(["sh", "-c", "cat; grep -E 'SigIgn|SigBlk' /proc/self/status"]) as tree:
            assert await tree.wait() == 0
            _, blocked, _, ignored = tree.last_lines().split()
            # Signals 32 and 33 are the C library's own; whether they are masked is up to whoever started the tests.
            assert (int(blocked, 16) | int(ignored, 16)) & 0x7FFFFFFF == 0

    asyncio.run(main())


def test_stop_asks_first_and_lets_the_command_end_in_its_own_way() -> None:
    async def main() -> None:
        script = "trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.05; done"
        async with run_guarded(["sh", "-c", script]) as tree:
            await until(lambda: "up" in tree.last_lines(), "the trap is set")
            assert await tree.stop(grace_s=20) == 7
            assert "asked" in tree.last_lines()

    asyncio.run(main())


def test_stop_asks_a_server_behind_a_shell_too() -> None:
    async def main() -> None:
        inner = "trap 'echo server; exit' TERM; echo up; while :; do sleep 0.05; done"
        outer = f'trap "echo shell" TERM; sh -c "{inner}" & wait; wait'
        async with run_guarded(["sh", "-c", outer]) as tree:
            await until(lambda: "up" in tree.last_lines(), "the inner trap is set")
            assert await tree.stop(grace_s=20) == 0
            assert {"shell", "server"} <= set(tree.last_lines().split())

    asyncio.run(main())


def test_stop_kills_what_does_not_end_in_time() -> None:
    async def main() -> None:
        script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
        async with run_guarded(["sh", "-c", script]) as tree:
            await until(lambda: "up" in tree.last_lines(), "the trap is set")
            assert await tree.stop(grace_s=0.1) == 128 + signal.SIGKILL

    asyncio.run(main())


def test_a_signal_to_the_guardian_itself_ends_the_tree_in_order() -> None:
    async def main() -> None:
        async with run_guarded(["sleep", "60"]) as tree:
            await until(lambda: len(pids_below(tree)) == 1, "sleep runs")
            os.kill(tree.guardian, signal.SIGTERM)
            assert await tree.wait() == 128 + signal.SIGTERM

    asyncio.run(main())


ESCAPING = "setsid sh -c '(echo escaped; exec sleep 60) & exit' ; echo up; "


def test_what_a_command_leaves_behind_ends_with_it() -> None:
    async def main() -> None:
        async with run_guarded(["sh", "-c", ESCAPING + "read line < /dev/stdin; exec sleep 0.3"]) as tree:
            await until(lambda: {"up", "escaped"} <= set(tree.last_lines().split()), "both run")
            left = pids_below(tree)
            assert await tree.wait() == 0
            assert not any(alive(pid) for pid in left)

    asyncio.run(main())


def test_orphans_are_waited_for_and_leave_no_zombie() -> None:
    async def main() -> None:
        async with run_guarded(["sh", "-c", "(true &) ; (true &) ; echo up; exec sleep 60"]) as tree:
            await until(
                lambda: "up" in tree.last_lines() and len(pids_below(tree)) == 1, "only sleep, not even zombies"
            )

    asyncio.run(main())


RUNNER = """
import asyncio, os, sys
from pathlib import Path
from knative_sponge.local.cpu.control import Entry
from knative_sponge.local.process import ChildTree
async def main():
    joins = tuple(Path(path) for path in sys.argv[2:])
    command = ["sh", "-c", sys.argv[1]]
    await ChildTree.start(command, env=os.environ, sink=lambda data: os.write(1, data), entry=Entry(joins))
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("in_group", [False, True])
def test_the_whole_tree_and_its_group_are_gone_after_the_runner_was_killed(in_group: bool) -> None:
    if in_group and not HAVE_V1:
        pytest.skip("needs the right to make cgroup v1 groups in the cpu hierarchy")
    parents = [V1_CPU.own] if in_group and V1_CPU is not None else []
    groups = make_group(KernelFiles(), parents, Owner.this_process()) if in_group else []
    # Nothing in this tree reacts to SIGTERM, and part of it has left the session.
    script = "trap '' TERM; " + ESCAPING + "sleep 60 & echo pids $$ $!; wait"
    argv = [PYTHON, "-c", RUNNER, script, *(str(group / "cgroup.procs") for group in groups)]
    runner = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    seen = ""
    while "pids" not in seen or "escaped" not in seen:
        line = runner.stdout.readline()
        assert line, f"the runner ended early: {seen}"
        seen += line
    tree = [process.pid for process in descendants(runner.pid)]
    assert len(tree) == 4, "guardian, shell, escaped sleep, plain sleep"
    runner.kill()
    runner.wait()
    runner.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in tree), "every process of the tree is gone")
    wait_until(lambda: not any(group.exists() for group in groups), "the group is gone")
