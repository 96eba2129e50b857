"""Until when a batch waits inside its slack for one more row."""

from __future__ import annotations

from typing import Any

import pytest

from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.work import Work

TIMES = [0.0, 0.2, 0.3, 0.4, 0.5]
CAP = 4


def held(
    rows: int = 1,
    rate: float = 5.0,
    times: list[float] = TIMES,
    deadline_s: float = 10.0,
    now: float = 0.0,
    **rules: Any,
) -> float | None:
    """For works that came 0 s, 1 s, … before now."""
    batch = [Work(key, deadline_s, arrived_s=now - key) for key in range(rows)]
    return DeferRules(**rules).hold_until(batch, CAP, now, rate, times, times)


def test_a_batch_waits_for_a_companion_as_long_as_it_takes_itself() -> None:
    assert held() == pytest.approx(0.2)
    assert held(now=3.0) == pytest.approx(3.2)
    assert held(max_wait=2.0) == pytest.approx(0.4)
    assert held(rows=2, max_wait=5.0) == pytest.approx(-1.0 + 5 * 0.3), "from the first arrival on"


def test_no_batch_waits_beyond_its_last_safe_start() -> None:
    assert held(deadline_s=0.5, rate=5.2) == pytest.approx(0.5 - 0.3 - 0.002)


@pytest.mark.parametrize(("rate", "waits"), [(4.9, False), (5.01, True), (5.5, True), (5.6, False)])
def test_a_companion_must_be_likely_and_the_server_not_busy(rate: float, waits: bool) -> None:
    assert (held(rate=rate, now=3.0) is not None) == waits


@pytest.mark.parametrize(
    ("rows", "times", "waits"),
    [
        (1, [0.0, 0.2, 0.38, 0.5, 0.5], True),
        (1, [0.0, 0.2, 0.39, 0.5, 0.5], False),
        (2, [0.0, 0.2, 0.3, 0.43, 0.5], True),
        (2, [0.0, 0.2, 0.3, 0.44, 0.5], False),
    ],
)
def test_a_companion_must_save_some_of_the_time_per_row(rows: int, times: list[float], waits: bool) -> None:
    assert (held(rows, 5.2, times, max_wait=9.0) is not None) == waits


def test_always_means_until_the_last_safe_start() -> None:
    assert held(mode="always", rate=0.0) == pytest.approx(10.0 - 0.3 - 0.002)
    assert held(mode="always", now=9.6) == pytest.approx(9.698)
    assert held(mode="always", now=9.7) is None


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_full_batch_waits_for_nothing(mode: str) -> None:
    assert held(rows=CAP, mode=mode, max_wait=99.0) is None
    assert DeferRules(mode=mode).hold_until([Work(1, 9.0, cohort=1)], CAP, 0.0, 5.0, TIMES, TIMES) is None


def test_never_means_never() -> None:
    assert held(mode="never") is None


@pytest.mark.parametrize(
    "bad", [{"mode": "often"}, {"max_load": -0.1}, {"min_saving": -0.1}, {"max_wait": -1.0}, {"margin_s": -1.0}]
)
def test_impossible_rules_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"mode|impossible"):
        DeferRules(**bad)


def test_rules_may_be_at_their_bounds() -> None:
    DeferRules(max_load=0.0, min_saving=0.0, max_wait=0.0, margin_s=0.0)
