"""The run that is going on: the cluster that the tests use and the report that they fill. Set once, by `python -m e2e`."""

from __future__ import annotations

from dataclasses import dataclass

from e2e.cluster.provider import Cluster, Provider
from e2e.harness.report import Report


@dataclass(frozen=True, slots=True)
class Running:
    """What a test may need beyond its own namespace."""

    provider: Provider
    cluster: Cluster
    report: Report


_current: list[Running] = []


def begin(running: Running) -> None:
    """From now on this is the run. pytest offers its plugins no other way to be handed a value before collection."""
    _current[:] = [running]


def current() -> Running:
    """The run. Raises RuntimeError outside of one."""
    if not _current:
        raise RuntimeError("end-to-end tests are started with: python -m e2e")
    return _current[0]
