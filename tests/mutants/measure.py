"""Which test of a room executes which line of the product, and what each test costs: one run of the room's tests."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

from tests.mutants.mutation import Mutation
from tests.mutants.trial import PYTEST


@dataclass(frozen=True, slots=True)
class Reach:
    """cost_s: processor seconds of each test, by its pytest id. lines: the tests that execute a line, by file and line."""

    cost_s: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    def limits_s(self, mutation: Mutation) -> dict[str, float]:
        """The tests that execute the mutation's statement, the fastest first, with the processor seconds that each may take.

        What runs at import concerns all of them.
        """
        if mutation.at_import:
            found = set(self.cost_s)
        else:
            lines = self.lines.get(mutation.file, {})
            first, last = mutation.statement
            found = {test for line in range(first, last + 1) for test in lines.get(line, [])}
        ordered = sorted(found, key=lambda test: (self.cost_s[test], test))
        return {test: 10 + 5 * self.cost_s[test] for test in ordered}


def measure(files: Sequence[str], product: str, root: Path, into: Path) -> None:
    """Run the tests of `files` and write what they reach. Ends the process with pytest's status, so to be called in a fork."""
    log = os.open(into.with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    watch = _Watch(coverage.Coverage(data_file=None, config_file=False, source=[str(root / product)]))
    status = pytest.main([*PYTEST, *files], plugins=[watch])
    data = watch.coverage.get_data()
    lines = {
        str(Path(path).relative_to(root)): {
            line: [name for name in names if name] for line, names in data.contexts_by_lineno(path).items()
        }
        for path in data.measured_files()
    }
    into.write_text(json.dumps({"cost_s": watch.cost_s, "lines": lines}))
    sys.exit(status)


def read(path: Path) -> Reach:
    """What `measure` wrote."""
    found = json.loads(path.read_text())
    lines = {file: {int(line): tests for line, tests in by.items()} for file, by in found["lines"].items()}
    return Reach(found["cost_s"], lines)


class _Watch:
    """A pytest plugin that tells coverage which test runs and takes its time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.coverage = measured
        self.cost_s: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self) -> Iterator[None]:
        self.coverage.start()
        yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        start = time.process_time()
        try:
            return (yield)
        finally:
            self.cost_s[item.nodeid] = time.process_time() - start
            self.coverage.switch_context("")

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        self.coverage.stop()
        yield
