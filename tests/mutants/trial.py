"""One mutant against some tests, in a forked process that sees the mutant's text in place of one module's file."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import ClassVar

import pytest
from hypothesis import Phase, settings

from tests.mutants.forks import Task, forked
from tests.mutants.mutation import Mutation

PYTEST = (
    "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-o", "timeout=0",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",  # hypothesis is imported before the fork
)  # fmt: skip
_MEMORY_BYTES = 4 << 30
_IMPORT_S = 60.0
"""Processor seconds until the first test."""
_WAITING_S, _SHARED_CORE = 300.0, 10.0
"""Seconds by the clock: what a test may wait, and how often a processor second may last."""


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


def tried(
    limits_s: Mapping[Mutation, Mapping[str, float]], sources: Mapping[str, str], root: Path, jobs: int
) -> Iterator[tuple[Mutation, Verdict]]:
    """The verdict on each mutation from the tests named with it, as it is reached. One that no test executes survives.

    limits_s: processor seconds that each test may take, by its pytest id, in the order in which they run.
    sources: the texts of the files mutated, which are relative to `root`.
    """
    yield from ((mutation, Verdict.SURVIVED) for mutation, tests in limits_s.items() if not tests)
    tasks = (
        Task(
            mutation,
            partial(_try, _substitute(mutation, sources, root), tests),
            _WAITING_S + _SHARED_CORE * sum(tests.values()),
        )
        for mutation, tests in limits_s.items()
        if tests
    )
    for mutation, exit_code in forked(tasks, jobs):
        yield mutation, _verdict(exit_code)


def _substitute(mutation: Mutation, sources: Mapping[str, str], root: Path) -> Substitute:
    name = mutation.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return Substitute(name, str(root / mutation.file), mutation.apply(sources[mutation.file]))


class Substitute(importlib.machinery.SourceFileLoader):
    """Imports one module from a text. The module keeps its name, its file and, since one token is other, its lines."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """The text, compiled; no cached code is read or written."""
        code: CodeType = compile(self._source, self.path, "exec", dont_inherit=True)
        return code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A finder's, for `sys.meta_path`."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)


def _try(substitute: Substitute, limits_s: Mapping[str, float]) -> None:
    """Run the tests named up to the first that fails or takes longer. Ends the process: to be called in a fork."""
    assert substitute.name not in sys.modules, "a mutant of what is imported already would not be seen"
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    sys.meta_path.insert(0, substitute)
    signal.setitimer(signal.ITIMER_PROF, _IMPORT_S)
    files = dict.fromkeys(test.partition("::")[0] for test in limits_s)
    sys.exit(pytest.main([*PYTEST, "--tb=no", *files], plugins=[_Chosen(limits_s)]))


def _verdict(exit_code: int | None) -> Verdict:
    """What the exit code of `_try`'s process says; None when it had to be stopped."""
    if exit_code is None or exit_code == -signal.SIGPROF:
        return Verdict.TIMED_OUT
    if exit_code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        return Verdict.SURVIVED
    return Verdict.KILLED


class _Chosen:
    """A pytest plugin that runs the tests named in their order, each with its limit."""

    without_shrinking: ClassVar = [Phase.explicit, Phase.generate]

    def __init__(self, limits_s: Mapping[str, float]) -> None:
        self._limits_s = limits_s

    def pytest_sessionstart(self) -> None:
        # After tests/conftest.py and before the test modules, whose settings start from the profile of that moment.
        settings.register_profile("mutants", settings(), phases=self.without_shrinking, report_multiple_bugs=False)
        settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        items[:] = [found[test] for test in self._limits_s if test in found]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_PROF, self._limits_s[item.nodeid])
        return (yield)
