"""What is asked for, given what was needed: held for a while, and not changed for little."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from tests.core.batching.virtual_shell import new_batcher


class Scripted(DemandEstimator):
    """Needs what it is told to need."""

    def __init__(self, **rules: float) -> None:
        super().__init__(CoresRules(**{"min_cores": 0.1, "max_cores": 4.0, **rules}), new_batcher())  # type: ignore[arg-type]
        self.needed = 0.0

    def need(self, now: float) -> float:
        return self.needed

    def wants(self, *needs: tuple[float, float]) -> list[float]:
        found = []
        for now, self.needed in needs:
            found.append(self.want(now))
        return found


def test_the_largest_need_is_held() -> None:
    wants = Scripted(hold_s=1.0, deadband=0.0).wants(
        (0.0, 2.0), (0.5, 1.0), (0.7, 1.5), (1.0, 0.5), (1.01, 0.5), (1.71, 0.5)
    )
    assert wants == [2.0, 2.0, 2.0, 2.0, 1.5, 0.5]


@pytest.mark.parametrize(
    ("needs", "wants"),
    [
        ((2.0, 1.6), [2.0, 2.0]),  # hardly less
        ((2.0, 1.5), [2.0, 1.5]),
        ((2.0, 1.6, 1.5), [2.0, 2.0, 1.5]),  # less than what was asked for, not than what was needed before
        ((2.0, 2.001), [2.0, 2.001]),  # all of a growth
        ((4.0, 3.5), [4.0, 4.0]),
        ((0.12, 0.1), [0.12, 0.1]),  # the least is always asked for as it is
    ],
)
def test_hardly_less_is_not_asked_for(needs: Sequence[float], wants: list[float]) -> None:
    scripted = Scripted(hold_s=0.0, deadband=0.25)
    assert scripted.wants(*((float(second), need) for second, need in enumerate(needs))) == wants


def test_no_more_is_asked_for_than_can_be_had_now() -> None:
    scripted = Scripted(hold_s=10.0, deadband=0.25)
    assert scripted.wants((0.0, 2.0)) == [2.0]
    scripted.within(1.8)
    assert scripted.wants((1.0, 1.0)) == [1.8]
    scripted.within(0.05)
    assert (scripted.rules.min_cores, scripted.rules.max_cores) == (0.05, 0.05)
    scripted.within(3.0)
    assert (scripted.rules.min_cores, scripted.rules.max_cores) == (0.1, 3.0)
