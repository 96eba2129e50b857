"""What is written when calls of the model server fail."""

from __future__ import annotations

import logging

import pytest

from knative_sponge.errors import Reason
from knative_sponge.proxy.http.failure_log import OncePerPeriod, failures, note_failure


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    limit = OncePerPeriod(10.0, lambda: now[0])
    monkeypatch.setattr(failures, "filters", [limit])
    return now


def test_each_kind_is_written_at_once_and_then_once_a_period_with_the_number_of_the_others(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for second in (0.0, 1.0, 2.0, 9.9, 12.0, 13.0, 40.0):
        clock[0] = second
        note_failure(Reason.UPSTREAM_REFUSED, "connection refused")
        if second == 1.0:
            note_failure(Reason.UPSTREAM_ERROR, "connection lost")
    assert caplog.messages == [
        "upstream-refused: connection refused",
        "upstream-error: connection lost",
        "upstream-refused: connection refused (and 3 more in the 12 s before)",
        "upstream-refused: connection refused (and 1 more in the 28 s before)",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


@pytest.mark.parametrize("reason", [Reason.EXPIRED, Reason.HOPELESS, Reason.QUEUE_FULL, Reason.BAD_REQUEST])
def test_what_is_no_fault_of_the_model_server_is_not_written(
    clock: list[float], caplog: pytest.LogCaptureFixture, reason: Reason
) -> None:
    note_failure(reason, "anything")
    assert caplog.messages == []


def test_a_line_repeats_little_of_what_the_server_said(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    note_failure(Reason.UPSTREAM_ERROR, "x" * 5000)
    assert len(caplog.messages[0]) < 250
