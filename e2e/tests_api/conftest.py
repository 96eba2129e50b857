"""The API server, one for all tests; each test has a node and pods of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.api.server import Server, binaries


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory, Server(Path(directory), binaries()) as running:
        yield running
