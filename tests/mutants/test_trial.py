"""Mutants against real pytest runs, in processes forked from one that has not imported what is mutated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.rooms import ROOT

THING = """\
def least(a, b):
    return a if a < b else b


def countdown(n):
    while n > 0:
        n -= 1
    return n


def never():
    return 7
"""
TESTS = """\
import thing


def test_least():
    assert thing.least(1, 2) == 1


def test_countdown():
    assert thing.countdown(3) == 0
"""
DRIVER = """
from pathlib import Path
from tests.mutants.measure import measure, read
from tests.mutants.forks import Task, forked
from tests.mutants.mutation import mutations
from tests.mutants.trial import tried
from functools import partial

root = Path.cwd()
(_, code), = forked([Task("room", partial(measure, ["test_thing.py"], ".", root, root / "reach"), 60)], 1)
assert code == 0, (root / "reach.log").read_text()
source = (root / "thing.py").read_text()
reach = read(root / "reach")
limits_s = {m: {test: 1.0 for test in reach.limits_s(m)} for m in mutations(source, "thing.py")}
for mutation, verdict in tried(limits_s, {"thing.py": source}, root, 2):
    print(mutation.mutant, verdict, *(test.partition("::")[2] for test in limits_s[mutation]), sep="; ")
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder: Path = tmp_path_factory.mktemp("thing")
    (folder / "thing.py").write_text(THING)
    (folder / "test_thing.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER],
        cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert (folder / "thing.py").read_text() == THING
    lines = [line.split("; ") for line in done.stdout.splitlines()]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.parametrize(
    ("mutant", "verdict", "tests"),
    [
        ("return a if a <= b else b", "survived", ["test_least"]),
        ("while n >= 0:", "killed", ["test_countdown"]),
        ("while n > 1:", "killed", ["test_countdown"]),
        ("n += 1", "timed out", ["test_countdown"]),
        ("return 8", "survived", []),
    ],
)
def test_what_the_tests_that_execute_a_line_make_of_its_mutant(
    result: dict[str, list[str]], mutant: str, verdict: str, tests: list[str]
) -> None:
    assert result[mutant] == [verdict, *tests]
