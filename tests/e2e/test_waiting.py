"""Waits end: with what was waited for, or with a message that says what was seen instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.provider import ClusterError
from e2e.cluster.waiting import tails, wait_for


def test_a_wait_ends_when_the_condition_holds() -> None:
    answers = iter([False, False, True])
    wait_for("the third answer", lambda: next(answers), timeout_s=30, every_s=0.001)
    assert list(answers) == []


def test_an_error_in_the_condition_means_not_yet() -> None:
    asked = 0

    def condition() -> bool:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ClusterError("connection refused")
        return True

    wait_for("an answer", condition, timeout_s=30, every_s=0.001)
    assert asked == 3


def test_a_wait_in_vain_says_for_what_how_long_and_what_was_seen_last(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))

    def condition() -> bool:
        raise ClusterError("connection refused")

    with pytest.raises(ClusterError) as caught:
        wait_for("the server", condition, timeout_s=0.01, logs=[log, tmp_path / "absent.log"], every_s=0.001)
    first, second, *rest = str(caught.value).splitlines()
    assert first == "waited 0.01 s in vain for the server"
    assert second == "connection refused"
    assert rest == ["--- server.log", *(f"line {number}" for number in range(85, 100))]


def test_the_condition_is_asked_once_even_without_time() -> None:
    wait_for("what holds already", lambda: True, timeout_s=0)


def test_a_wait_that_has_become_pointless_ends_at_once() -> None:
    def alive() -> None:
        raise ClusterError("etcd has ended")

    with pytest.raises(ClusterError, match=r"^etcd has ended$"):
        wait_for("the server", lambda: False, timeout_s=3600, alive=alive)


def test_other_errors_are_not_taken_for_not_yet() -> None:
    def condition() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait_for("the server", condition, timeout_s=3600)


def test_tails_cut_long_lines_and_survive_bytes_that_are_no_text(tmp_path: Path) -> None:
    log = tmp_path / "noise.log"
    log.write_bytes(b"\xff\xfe" + b"x" * 10_000 + b"\nlast\n")
    _, name, noise, last = tails([log]).split("\n")
    assert (name, last) == ("--- noise.log", "last")
    assert len(noise) == 400
