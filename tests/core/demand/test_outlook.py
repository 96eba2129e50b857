"""What becomes of the work at hand where several batches run at once and share the cores."""

from __future__ import annotations

import pytest

from knative_sponge.core.batching.running import Due
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.outlook import Outlook
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel

MODEL = LatencyModel(LatencyParams(0.0, 0.0, 1.0, 0.0))
"""A second on one core, whatever the rows; with caution 1.65 s."""


def works(*deadlines_s: float) -> list[Work]:
    return [Work(key, deadline_s) for key, deadline_s in enumerate(deadlines_s)]


@pytest.mark.parametrize(("cores", "lost"), [(2.0, 2), (3.0, 0)])
def test_each_of_two_slots_has_half_of_the_cores(cores: float, lost: int) -> None:
    assert Outlook(MODEL, works(1.2, 1.2), [], 0.0, 1, 2).lost(cores) == lost


@pytest.mark.parametrize(("cores", "lost"), [(2.0, 1), (3.0, 0)])
def test_a_running_batch_has_its_slots_cores(cores: float, lost: int) -> None:
    assert Outlook(MODEL, [], [(1, 1.0, Due.of(works(1.2)))], 0.0, 1, 2).lost(cores) == lost


def test_what_is_left_of_a_running_batch_is_what_counts() -> None:
    outlook = Outlook(MODEL, [], [(1, 0.5, Due.of(works(6.0)))], 5.0, 1, 1)
    assert (outlook.lost(1.0), outlook.lost(0.8)) == (0, 1)


def test_a_slot_is_free_when_its_batch_is_done_and_the_others_are_free_now() -> None:
    running = [(1, 1.0, Due.of(works(9.0)))]
    assert Outlook(MODEL, works(2.0), running, 0.0, 1, 1).lost(1.0) == 1
    assert Outlook(MODEL, works(2.0), running, 0.0, 1, 2).lost(2.0) == 0
    assert Outlook(MODEL, works(2.0, 2.0), running, 0.0, 1, 2).lost(2.0) == 1


def test_the_least_cores_lose_no_more_than_the_most() -> None:
    both = Outlook(MODEL, works(1.2, 1.2), [], 0.0, 1, 2)
    assert both.least_cores(0.1, 8.0) == pytest.approx(2 * 1.648721 / 1.2, abs=0.001)
    assert both.least_cores(3.0, 8.0) == 3.0
    assert Outlook(MODEL, works(0.01), [], 0.0, 1, 1).least_cores(0.1, 4.0) == 4.0
