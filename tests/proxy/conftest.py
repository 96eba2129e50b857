"""Proxies as processes, each in front of an application (conformance_kit)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.proxy.conformance_kit import Application, application
from tests.proxy.test_server import Running, running
from tests.proxy.wire import LOCAL


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as server:
        yield server


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[Running, Application]]:
    """One proxy for the tests that change nothing about it, in front of an application with a TCP probe."""
    with application() as server:
        probe = json.dumps({"tcpSocket": {"host": LOCAL, "port": server.port}, "successThreshold": 1})
        with running(USER_PORT=str(server.port), SERVING_READINESS_PROBE=probe) as proxy:
            yield proxy, server


@pytest.fixture(scope="module")
def impatient() -> Iterator[tuple[Running, Application]]:
    """A proxy that allows a second."""
    with application() as server, running(USER_PORT=str(server.port), REVISION_TIMEOUT_SECONDS="1") as proxy:
        yield proxy, server
