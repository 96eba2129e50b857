"""The core decides and does nothing else: standard library only, no I/O, no clock, no randomness."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import knative_sponge.core

CORE = Path(knative_sponge.core.__file__).parent
MODULES = sorted(CORE.rglob("*.py"))
OWN = ("knative_sponge.core", "knative_sponge.errors")
FORBIDDEN = {"asyncio", "io", "logging", "os", "pathlib", "random", "socket", "subprocess", "threading", "time"}


def imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module or ""


def test_all_modules_of_the_core_are_read() -> None:
    assert len(MODULES) > 40


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_a_core_module_imports_only_pure_parts_of_the_standard_library(module: Path) -> None:
    for name in imported(module):
        root = name.split(".")[0]
        assert name.startswith(OWN) or root in sys.stdlib_module_names, name
        assert root not in FORBIDDEN, name
