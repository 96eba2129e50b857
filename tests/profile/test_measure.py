from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.offline_fit import fit_latency
from knative_sponge.profile.measure import measure
from tests.virtual_time import run_virtual

PARAMS = LatencyParams(0.02, 0.004, 0.003, 0.001)


@dataclass
class FakeServer:
    """Takes exactly what the curve says, and a second more for the first call after each change of size."""

    cores: float = 1.0
    cold: bool = True
    sizes: list[float] = field(default_factory=list)

    async def resize(self, cores: float) -> float:
        self.cores, self.cold = round(cores, 1), True
        self.sizes.append(cores)
        return self.cores

    async def infer(self, rows: int) -> None:
        await asyncio.sleep(PARAMS.latency_s(rows, self.cores) + (1.0 if self.cold else 0.0))
        self.cold = False


def measured(
    budget_s: float, rows: tuple[int, ...] = (1, 2, 4), cores: tuple[float, ...] = (0.5, 1.04)
) -> list[Sample]:
    async def main() -> list[Sample]:
        clock = asyncio.get_running_loop().time
        return await measure(FakeServer(), rows, cores, budget_s=budget_s, clock=clock)

    return run_virtual(main)


def test_every_point_of_the_grid_is_measured_at_the_size_in_force() -> None:
    points = {(sample.rows, sample.cores) for sample in measured(0.1)}
    assert points == {(rows, cores) for rows in (1, 2, 4) for cores in (0.5, 1.0)}


def test_the_first_call_after_a_change_of_size_is_not_counted() -> None:
    for sample in measured(20):
        assert sample.seconds == pytest.approx(PARAMS.latency_s(sample.rows, sample.cores))


def test_rounds_go_on_until_the_budget_is_spent_and_points_share_it_evenly() -> None:
    counts = Counter((sample.rows, sample.cores) for sample in measured(20))
    assert len(set(counts.values())) == 1
    assert min(counts.values()) >= 5


def test_the_curve_is_found_again_from_its_own_samples() -> None:
    fitted = fit_latency(measured(10, rows=(1, 2, 4, 8), cores=(0.3, 0.6, 1.4)))
    for rows, cores in ((1, 0.4), (6, 1.0), (8, 1.4)):
        assert fitted.latency_s(rows, cores) == pytest.approx(PARAMS.latency_s(rows, cores), rel=0.02)


def test_progress_ends_at_the_whole() -> None:
    told: list[float] = []

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        await measure(FakeServer(), (1,), (1.0,), budget_s=3, clock=clock, progress=told.append)

    run_virtual(main)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(("rows", "cores"), [((), (1.0,)), ((1,), ())])
def test_an_empty_grid_is_refused(rows: tuple[int, ...], cores: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="empty"):
        measured(1, rows, cores)
