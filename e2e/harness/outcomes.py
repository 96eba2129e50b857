"""A pytest plugin that writes each test's outcome, seconds and recorded properties into a run's report. Judges nothing."""

from __future__ import annotations

import pytest

from e2e.harness.report import Report


class Outcomes:
    """For tests that know nothing of the run; those of `e2e/tests` write into the report themselves."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """pytest's hook, called for set-up, test and tear-down."""
        entry = self._report.entry(report.nodeid)
        entry.seconds = round(entry.seconds + report.duration, 2)
        entry.measured.update(report.user_properties)
        if report.outcome != "passed":
            entry.outcome = report.outcome
