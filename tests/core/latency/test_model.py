"""What the latency model promises to those who plan with it: monotone predictions, caution by region, tables."""

from __future__ import annotations

import random
from math import exp, inf, nan

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from knative_sponge.core.latency.curve import DEFAULT_SHAPE, LatencyParams, Sample, core_bucket, region_of, row_bucket
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import to_json
from knative_sponge.core.latency.spread import Scatter
from tests.core.profiles import measured, teach

CURVE = LatencyParams(gamma=0.02, delta=0.002, epsilon=0.01, eta=0.003)

parameters = st.one_of(st.just(0.0), st.floats(1e-5, 1.0))
curves = st.builds(
    lambda g, d, e, h: LatencyParams(g, d, e, h or 0.001), parameters, parameters, parameters, parameters
)
core_counts = st.one_of(st.floats(0.05, 64.0), st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
threads = st.sampled_from([None, 1, 2, 5])


scatters = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(-7, 8)), st.floats(0.0, 0.8), max_size=30
)  # fmt: skip


def scattered(
    prior: LatencyParams, spread: dict[tuple[int, int], float], server_threads: int | None = None
) -> LatencyModel:
    """A model with the curve of the prior that measured so much scatter (σ) in each region."""
    model = LatencyModel(prior, threads=server_threads)
    regions = {region: Scatter(1000, sigma * sigma) for region, sigma in spread.items()}
    model.spread.restore(Scatter(1000, 0.01), regions)
    return model


@given(curves, scatters, threads, st.tuples(core_counts, core_counts))
def test_predictions_never_rise_with_cores_and_never_fall_with_rows(
    prior: LatencyParams, spread: dict[tuple[int, int], float], k: int | None, pair: tuple[float, float]
) -> None:
    model = scattered(prior, spread, k)
    few, many = (model.tables(cores, 40) for cores in sorted(pair))

    for on_few, on_many in zip(few, many, strict=True):
        assert on_few == sorted(on_few)
        assert all(less >= more * (1 - 1e-12) for less, more in zip(on_few, on_many, strict=True))


QUIET = {(row, 0): 0.0 for row in range(7)}  # on 1 to 2 cores; all larger sizes scatter more


@given(curves, scatters, core_counts, st.integers(1, 40))
@example(LatencyParams(0.0, 0.01, 0.1, 0.0), QUIET, 1.0, 32)  # a larger size overtakes within a row bucket
@example(LatencyParams(0.02, 0.0, 0.0, 1.0), QUIET, 1.0, 17)  # and one falls behind
def test_a_cautious_latency_is_the_most_that_any_smaller_batch_or_larger_size_calls_for(
    prior: LatencyParams, spread: dict[tuple[int, int], float], cores: float, rows: int
) -> None:
    model = scattered(prior, spread)
    larger = [cores, *(edge for edge in (2.0**k for k in range(-7, 9)) if edge > cores)]
    hull = max(
        model.predict_s(fewer, more) * exp(2.0 * model.spread.sigma(region_of(fewer, more)))
        for fewer in range(1, rows + 1)
        for more in larger
    )

    assert model.cautious_s(rows, cores) == pytest.approx(hull + 0.1 * max(0.0, 1.0 - cores), rel=1e-9)
    assert model.cautious_s(rows, cores) >= model.predict_s(rows, cores)


@given(curves, scatters, core_counts, st.integers(1, 40))
def test_tables_are_the_single_predictions_for_any_number_of_rows(
    prior: LatencyParams, spread: dict[tuple[int, int], float], cores: float, most: int
) -> None:
    model = scattered(prior, spread)
    median, cautious = model.tables(cores, most)

    assert (len(median), len(cautious)) == (most + 1, most + 1)
    assert median[0] == cautious[0] == 0.0
    for rows in range(1, most + 1):
        assert median[rows] == model.predict_s(rows, cores)
        assert cautious[rows] == pytest.approx(model.cautious_s(rows, cores), rel=1e-12)


def test_tables_are_made_once_per_sample() -> None:
    model = LatencyModel(CURVE)
    before = model.tables(2.0, 8)
    assert model.tables(2.0, 8) is before

    model.observe(Sample(4, 2.0, 0.1), 1.0)

    assert model.tables(2.0, 8) is not before
    assert model.tables(2.0, 8)[0] != before[0]


def test_tables_asked_for_at_ever_new_sizes_do_not_pile_up() -> None:
    model = LatencyModel(CURVE)
    for step in range(2000):
        model.tables(0.1 + step / 100, 1 + step % 300)

    assert len(model._tables) <= 64
    assert len(model._caution_factors) <= 64


def test_a_cold_sample_is_not_a_sample() -> None:
    model = LatencyModel(CURVE)
    before = to_json(model)

    model.observe(Sample(4, 2.0, 30.0, cold=True), 7.0)

    assert to_json(model) == before
    assert model.last_sample_s is None


def test_the_time_of_the_last_learned_sample_is_known() -> None:
    model = LatencyModel(CURVE)
    model.observe(Sample(4, 2.0, 0.1), 7.0)
    model.observe(Sample(4, 2.0, 9.0, cold=True), 8.0)

    assert model.last_sample_s == 7.0


def test_without_a_prior_the_first_predictions_are_optimistic() -> None:
    model = LatencyModel()

    assert model.params == DEFAULT_SHAPE
    assert model.predict_s(1, 1.0) == pytest.approx(1e-3)
    assert model.predict_s(1, 0.1) < 0.01


def test_before_any_sample_a_prior_is_taken_as_it_is_but_sized_with_caution() -> None:
    model = LatencyModel(CURVE)

    assert model.params == CURVE
    assert model.cautious_s(8, 2.0) == pytest.approx(CURVE.latency_s(8, 2.0) * exp(2 * 0.25))


def test_caution_follows_the_scatter_of_the_region() -> None:
    rng = random.Random(3)
    model = LatencyModel(CURVE)
    for _ in range(400):
        model.observe(Sample(1, 2.0, CURVE.latency_s(1, 2.0) * exp(rng.gauss(0.0, 0.3))), 0.0)
        model.observe(Sample(16, 2.0, CURVE.latency_s(16, 2.0) * exp(rng.gauss(0.0, 0.05))), 0.0)

    assert model.cautious_s(1, 2.0) / model.predict_s(1, 2.0) == pytest.approx(exp(2 * 0.3), rel=0.15)
    assert model.cautious_s(16, 2.0) / model.predict_s(16, 2.0) == pytest.approx(exp(2 * 0.05), rel=0.08)


def test_scatter_that_has_passed_is_forgotten() -> None:
    rng = random.Random(4)
    model = LatencyModel(CURVE)
    teach(model, measured(CURVE.latency_s, ((2, 2.0) for _ in range(300)), 0.4, rng))
    nervous = model.cautious_s(2, 2.0) / model.predict_s(2, 2.0)
    teach(model, measured(CURVE.latency_s, ((2, 2.0) for _ in range(300)), 0.03, rng))

    assert nervous > 1.7
    assert model.cautious_s(2, 2.0) / model.predict_s(2, 2.0) < 1.15


def test_a_noiseless_server_keeps_a_margin_and_a_wild_one_a_bound() -> None:
    steady = teach(LatencyModel(CURVE), (Sample(2, 2.0, CURVE.latency_s(2, 2.0)) for _ in range(3000)))
    assert steady.cautious_s(2, 2.0) / steady.predict_s(2, 2.0) >= exp(2 * 0.02)

    rng = random.Random(5)
    wild = teach(LatencyModel(CURVE), measured(CURVE.latency_s, ((2, 2.0) for _ in range(500)), 1.5, rng))
    assert wild.cautious_s(2, 2.0) / wild.predict_s(2, 2.0) <= exp(2 * 0.7) * (1 + 1e-9)


def test_scattered_small_batches_do_not_inflate_large_ones() -> None:
    rng = random.Random(6)
    model = LatencyModel(CURVE)
    for _ in range(300):
        for rows, cores, sigma in ((1, 16.0, 0.5), (32, 1.0, 0.03)):
            model.observe(Sample(rows, cores, CURVE.latency_s(rows, cores) * exp(rng.gauss(0.0, sigma))), 0.0)

    assert model.cautious_s(1, 16.0) > 1.8 * model.predict_s(1, 16.0)
    assert model.cautious_s(32, 1.0) < 1.25 * model.predict_s(32, 1.0)


@pytest.mark.parametrize(
    ("server_threads", "period_s", "cores", "wait_s"),
    [
        pytest.param(1, 0.1, 0.25, 0.075, id="one thread on a quarter core waits three quarters of a period"),
        pytest.param(1, 0.1, 1.0, 0.0, id="one thread on one core never waits"),
        pytest.param(4, 0.1, 3.0, 0.025, id="four threads on three cores"),
        pytest.param(4, 0.1, 6.0, 0.0, id="more cores than threads"),
        pytest.param(1, 0.01, 0.25, 0.0075, id="a short period"),
        pytest.param(1, 0.0, 0.25, 0.0, id="no quota"),
        pytest.param(None, 0.1, 0.5, 0.05, id="following threads below one core"),
        pytest.param(None, 0.1, 2.5, 0.0, id="following threads above one core"),
    ],
)  # fmt: skip
def test_a_quota_below_the_runnable_threads_adds_the_rest_of_a_period(
    server_threads: int | None, period_s: float, cores: float, wait_s: float
) -> None:
    model = LatencyModel(CURVE, threads=server_threads, period_s=period_s)
    unlimited = LatencyModel(CURVE, threads=server_threads, period_s=0.0)

    assert model.cautious_s(4, cores) - unlimited.cautious_s(4, cores) == pytest.approx(wait_s)
    assert model.predict_s(4, cores) == unlimited.predict_s(4, cores)


@pytest.mark.parametrize(
    "levers", [{"forgetting": 0.0}, {"forgetting": 1.0}, {"caution": -0.1}, {"threads": 0}, {"period_s": -1.0}]
)
def test_impossible_levers_are_refused(levers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(levers))):
        LatencyModel(**levers)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [(-1e-9, 1, 1, 1), (nan, 1, 1, 1), (1, inf, 1, 1), (0, 0, 0, 0)])
def test_impossible_parameters_are_refused(values: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        LatencyParams(*values)


@pytest.mark.parametrize("gamma", [1e-12, 1e12])
def test_a_prior_in_the_wrong_unit_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="one row on one core"):
        LatencyModel(LatencyParams(gamma, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "values", [(0, 1.0, 1.0), (1, 0.0, 1.0), (1, inf, 1.0), (1, 1.0, 0.0), (1, 1.0, -1.0), (1, 1.0, nan)]
)
def test_impossible_samples_are_refused(values: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Sample(*values)


@pytest.mark.parametrize("cores", [0.0, -1.0])
def test_no_tables_without_cores(cores: float) -> None:
    with pytest.raises(ValueError, match="cores"):
        LatencyModel(CURVE).tables(cores, 4)


@given(st.integers(1, 4096), st.floats(0.01, 511.0))
def test_a_region_holds_the_sizes_within_a_factor_of_two(rows: int, cores: float) -> None:
    row, core = row_bucket(rows), core_bucket(cores)

    assert 2 ** (row - 1) < rows <= 2**row
    assert 2.0**core <= cores < 2.0 ** (core + 1)
