"""The offline fit: as close to the published profiles as four non-negative parameters come, whatever one cell says."""

from __future__ import annotations

from math import log
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.latency.curve import DEFAULT_SHAPE, LatencyParams, Sample
from knative_sponge.core.latency.offline_fit import fit_latency
from tests.core.profiles import RESNET18, RESNET18_OTHER_SOURCE, YOLOV5S, samples_of

CURVE = LatencyParams(gamma=0.02, delta=0.002, epsilon=0.01, eta=0.003)
GRID = [(rows, cores) for rows in (1, 2, 4, 8, 16) for cores in (1.0, 2.0, 4.0, 8.0)]

parameters = st.one_of(st.just(0.0), st.floats(1e-4, 1.0))
curves = st.builds(lambda g, d, e, h: LatencyParams(g, d, e, h or 1e-3), parameters, parameters, parameters, parameters)


def off(params: LatencyParams, truth: LatencyParams) -> float:
    return max(abs(log(params.latency_s(b, c) / truth.latency_s(b, c))) for b, c in GRID)


@pytest.mark.parametrize(
    ("table", "typical", "worst"),
    [
        pytest.param(YOLOV5S, 0.05, 0.15, id="YOLOv5s"),
        pytest.param(RESNET18_OTHER_SOURCE, 0.07, 0.17, id="ResNet18"),
        pytest.param(RESNET18, 0.08, 0.30, id="ResNet18 with two outlying cells"),
    ],
)
def test_published_profiles_are_fitted_within_a_few_per_cent(
    table: tuple[tuple[float, ...], ...], typical: float, worst: float
) -> None:
    """Plain least squares misses them by 5.7, 8.6 and 12.5 % typically, and by 21, 35 and 54 % at worst."""
    fitted = fit_latency(samples_of(table))
    errors = [abs(fitted.latency_s(sample.rows, sample.cores) / sample.seconds - 1.0) for sample in samples_of(table)]

    assert mean(errors) < typical
    assert max(errors) < worst


@given(curves)
def test_a_curve_is_found_again_from_its_grid(truth: LatencyParams) -> None:
    fitted = fit_latency([Sample(b, c, truth.latency_s(b, c)) for b, c in GRID])

    assert off(fitted, truth) < 0.01


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("cell", range(0, len(GRID), 3))
def test_one_wild_cell_hardly_moves_the_fit(cell: int, factor: float) -> None:
    samples = [Sample(b, c, CURVE.latency_s(b, c)) for b, c in GRID]
    wild = samples[cell]
    samples[cell] = Sample(wild.rows, wild.cores, wild.seconds * factor)

    fitted = fit_latency(samples)

    assert off(fitted, CURVE) < 0.05


def test_cold_samples_are_left_out() -> None:
    samples = samples_of(YOLOV5S)
    assert fit_latency([*samples, Sample(1, 1.0, 60.0, cold=True)]) == fit_latency(samples)


@pytest.mark.parametrize("prior", [DEFAULT_SHAPE, LatencyParams(0.0, 1.0, 0.0, 1.0)], ids=["default", "serial"])
def test_what_one_core_count_leaves_open_takes_the_shape_of_the_prior(prior: LatencyParams) -> None:
    samples = [Sample(b, 2.0, CURVE.latency_s(b, 2.0)) for b in (1, 2, 4, 8)]
    fitted = fit_latency(samples, prior)

    assert all(fitted.latency_s(s.rows, 2.0) == pytest.approx(s.seconds, rel=0.01) for s in samples)
    gain = prior.latency_s(4, 2.0) / prior.latency_s(4, 8.0)
    assert fitted.latency_s(4, 2.0) / fitted.latency_s(4, 8.0) == pytest.approx(gain, rel=0.15)


def test_nothing_measured_is_nothing_fitted() -> None:
    with pytest.raises(ValueError, match="no sample"):
        fit_latency([Sample(1, 1.0, 1.0, cold=True)])
