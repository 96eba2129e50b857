"""The cluster, the product on it, and a namespace per test. `python -m e2e` makes the cluster; these only find it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.cluster.provider import Cluster
from e2e.harness.kube import Kube
from e2e.harness.report import Report
from e2e.harness.services import Services
from e2e.running import current

Measure = Callable[[str, Any], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Uninstalling comes last, after everything that needs the product."""
    items.sort(key=lambda item: "test_uninstall" in item.nodeid)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return current().cluster


@pytest.fixture(scope="session")
def report() -> Report:
    return current().report


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    return Kube(cluster)


@pytest.fixture
def namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace named after the test; gone after it. Its pods are not left to drain: the next test needs their cores."""
    about = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:30].strip("-")
    name = f"{about}-{secrets.token_hex(2)}"
    kube("create", "namespace", name)
    yield name
    kube("delete", "namespace", name, "--wait=false")
    kube("delete", "pods", "--all", "-n", name, "--force", "--grace-period=0", "--ignore-not-found")


@pytest.fixture
def services(cluster: Cluster, namespace: str) -> Services:
    return Services(cluster, namespace)


@pytest.fixture
def measure(report: Report, request: pytest.FixtureRequest) -> Measure:
    """Writes a figure of this test into the report."""
    entry = report.entry(request.node.nodeid)

    def write(name: str, value: Any) -> None:
        entry.measured[name] = value
        print(f"    {name}: {value}")

    return write


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    result = outcome.get_result()
    entry = current().report.entry(item.nodeid)
    entry.seconds = round(entry.seconds + result.duration, 2)
    if result.outcome != "passed":
        entry.outcome = result.outcome
