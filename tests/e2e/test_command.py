"""Programs that are run to their end: what comes back, and what a failure says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from e2e.cluster.command import run
from e2e.cluster.provider import ClusterError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_standard_output_comes_back_and_the_input_goes_in() -> None:
    code = "import sys; print(sys.stdin.read().upper(), end=''); print('noise', file=sys.stderr)"
    assert run(python(code), stdin="hello") == "HELLO"


def test_a_program_gets_this_environment_and_what_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "kept")
    code = "import os; print(os.environ['KEPT'], os.environ.get('ADDED'), os.getcwd())"
    assert run(python(code), env={"ADDED": "added"}, cwd=tmp_path).split() == ["kept", "added", str(tmp_path)]
    assert run(python(code)).split()[1] == "None"


def test_a_failure_says_the_status_the_command_and_all_that_was_printed() -> None:
    code = "import sys; print('out'); print('the reason', file=sys.stderr); sys.exit(3)"
    with pytest.raises(ClusterError) as caught:
        run(python(code))
    message = str(caught.value)
    assert message.startswith(f"exit status 3: {sys.executable} -c ")
    assert "the reason\n" in message
    assert "out\n" in message


def test_of_a_failures_output_the_end_is_shown() -> None:
    code = "import sys; print('start' + 'x' * 10_000 + 'the reason', file=sys.stderr); sys.exit(1)"
    with pytest.raises(ClusterError, match="xxxthe reason") as caught:
        run(python(code))
    assert len(str(caught.value)) < 4000


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ClusterError, match=r"^no-such-program is not installed \(wanted for: no-such-program up\)$"):
        run(["no-such-program", "up"])


def test_a_program_that_takes_too_long_is_ended_and_its_output_shown(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(ClusterError, match=r"no end after 1 s: .*\nhalf-way"):
        run(["sh", "-c", f"echo $$ > {pid}; echo half-way; exec sleep 600"], timeout_s=1.0)
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
