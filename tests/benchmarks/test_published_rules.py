"""The published solvers against their golden answers, and where they waste or fall behind and the throughput floor does not."""

from __future__ import annotations

from itertools import product
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.published_rules import Fleet, PlainParams, Setting, fa2_solver, plain_fit, sponge_solver
from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.offline_fit import fit_latency
from knative_sponge.core.latency.throughput import floor_cores
from tests.core.latency.test_throughput import best_throughput
from tests.core.profiles import RESNET18, RESNET18_TRUNCATED, YOLOV5S, samples_of

RESNET = plain_fit(samples_of(RESNET18_TRUNCATED))
YOLO = plain_fit(samples_of(YOLOV5S))
RESNET_ONLINE = fit_latency(samples_of(RESNET18))


@pytest.mark.parametrize(
    ("fitted", "milliseconds", "digits"),
    [
        pytest.param(RESNET, (18.290, 4.488, 45.469, 1.046), 3, id="ResNet18"),
        pytest.param(YOLO, (140.44, 25.24, -50.84, 22.14), 2, id="YOLOv5s"),
    ],
)
def test_plain_fit_gives_the_published_parameters(
    fitted: PlainParams, milliseconds: tuple[float, float, float, float], digits: int
) -> None:
    values = (fitted.gamma, fitted.delta, fitted.epsilon, fitted.eta)
    assert tuple(round(1000.0 * value, digits) for value in values) == milliseconds


def test_plain_fit_can_be_made_of_latencies_as_they_are() -> None:
    curve = PlainParams(0.02, 0.002, -0.001, 0.003)
    grid = [Sample(b, c, curve.latency_s(b, c)) for b, c in product((1, 2, 4), (1.0, 2.0, 4.0))]
    fitted = plain_fit(grid, truncate_ms=False)

    assert [fitted.gamma, fitted.delta, fitted.epsilon, fitted.eta] == pytest.approx([0.02, 0.002, -0.001, 0.003])


def test_plain_fit_refuses_a_grid_of_one_core_count() -> None:
    with pytest.raises(ValueError, match="singular"):
        plain_fit([Sample(b, 2.0, 0.01 * b) for b in (1, 2, 4, 8)])


@pytest.mark.parametrize(
    ("margin", "answer"),
    [(1.0, Setting(5, 10, 0.091)), (0.9, Setting(6, 10, 0.083))],
    ids=["no margin", "as published"],
)
def test_sponge_answers_on_resnet18(margin: float, answer: Setting) -> None:
    assert sponge_solver(RESNET.latency_s, 100.0, 0.05, 1.0, margin=margin) == answer


@pytest.mark.parametrize(
    ("network_ms", "answer"),
    [(0, (9, 4)), (44, (10, 5)), (60, (11, 5)), (80, (12, 5)), (100, (13, 5)), (120, (14, 5)), (140, (16, 5))],
)
def test_sponge_answers_on_yolov5s(network_ms: int, answer: tuple[int, int]) -> None:
    setting = sponge_solver(YOLO.latency_s, 20.0, network_ms / 1000.0, 1.0, max_rows=8)

    assert setting is not None
    assert (setting.cores, setting.rows) == answer


@pytest.mark.parametrize("network_ms", [150, 200, 899, 900, 1000])
def test_sponge_has_no_answer_once_the_network_took_too_much(network_ms: int) -> None:
    assert sponge_solver(YOLO.latency_s, 20.0, network_ms / 1000.0, 1.0, max_rows=8) is None


def test_sponge_can_be_asked_of_a_profile_instead_of_a_fit() -> None:
    measured = {(sample.rows, sample.cores): sample.seconds for sample in samples_of(YOLOV5S)}
    setting = sponge_solver(
        lambda rows, cores: measured.get((rows, cores), inf), 4.0, 0.0, 1.0, max_rows=8, truncate_ms=False
    )

    assert setting == pytest.approx((1, 1, 0.1516))


def test_a_setting_that_just_fits_is_taken() -> None:
    """Seven batches of 0.1 s in the 0.7 s that are left; in floating point their sum is more."""
    assert sponge_solver(lambda *_: 0.1, 7.0, 0.2, 1.0, max_rows=1) == Setting(1, 1, 0.1)


@given(
    st.floats(0.1, 200.0),
    st.integers(0, 900),
    st.integers(100, 3000),
    st.sampled_from([0.9, 1.0]),
    st.booleans(),
)
def test_sponge_answers_as_its_published_loop(
    rate: float, network_ms: int, slo_ms: int, margin: float, truncate: bool
) -> None:
    """The loop restated: c outside, b inside, batch after batch, reject as soon as one would end too late."""

    def loop() -> tuple[int, int] | None:
        for cores, rows in product(range(1, 17), range(1, 17)):
            each = RESNET.latency_s(rows, cores) * 1000.0
            each = int(each) if truncate else each
            if ceil(rate / rows) * each + network_ms <= margin * slo_ms + 1e-6:
                return cores, rows
        return None

    setting = sponge_solver(
        RESNET.latency_s, rate, network_ms / 1000.0, slo_ms / 1000.0, margin=margin, truncate_ms=truncate
    )
    assert (setting and setting[:2]) == loop()


@pytest.mark.parametrize(
    ("slo_s", "rate", "answer", "throughput"),
    [
        pytest.param(2.0, 20.0, (1, 1), 14.5, id="2 s, 20 requests/s"),
        pytest.param(1.5, 40.0, (1, 7), 34.1, id="1.5 s, 40 requests/s"),
    ],
)
def test_sponge_is_unstable_with_long_slos_and_the_floor_is_not(
    slo_s: float, rate: float, answer: tuple[int, int], throughput: float
) -> None:
    setting = sponge_solver(RESNET.latency_s, rate, 0.1, slo_s)
    assert setting is not None
    assert setting[:2] == answer
    assert setting.rows / setting.latency_s == pytest.approx(throughput, abs=0.1)
    assert setting.rows / setting.latency_s < rate

    positive = LatencyParams(RESNET.gamma, RESNET.delta, RESNET.epsilon, RESNET.eta)
    cores = floor_cores(positive, rate, 16, slo_s - 0.1)
    assert cores is not None
    assert best_throughput(positive, cores, 16, slo_s - 0.1) >= rate


@given(st.floats(0.1, 150.0), st.floats(0.3, 5.0), st.floats(0.0, 0.25))
def test_the_floor_is_never_unstable(rate: float, slo_s: float, network_s: float) -> None:
    """Over the whole range in which the published rule may answer with less than the rate."""
    cores = floor_cores(RESNET_ONLINE, rate, 16, slo_s - network_s)

    assert cores is not None
    assert best_throughput(RESNET_ONLINE, cores, 16, slo_s - network_s) > rate


def test_sponge_over_provisions_when_the_network_took_much() -> None:
    """20 requests/s all at once, each having lost 0.7 s: five cores, where one carries the rate."""
    setting = sponge_solver(RESNET.latency_s, 20.0, 0.7, 1.0)
    positive = LatencyParams(RESNET.gamma, RESNET.delta, RESNET.epsilon, RESNET.eta)
    cores = floor_cores(positive, 20.0, 16, 0.3)

    assert setting == Setting(5, 5, 0.05)
    assert setting.rows / setting.latency_s == pytest.approx(100.0)
    assert cores is not None
    assert cores < 1.5


@pytest.mark.parametrize(
    ("network_ms", "instances"), [(0, 4), (42, 4), (103, 5), (200, 5), (222, 7), (280, 7)]
)  # fmt: skip
def test_fa2_takes_four_to_five_small_instances_and_peaks_when_the_network_is_slow(
    network_ms: int, instances: int
) -> None:
    """YOLOv5s at 20 requests/s: published as 4–5 typical with peaks of 7–10."""
    assert fa2_solver(YOLO.latency_s, 20.0, network_ms / 1000.0, 1.0) == Fleet(instances, 1, 0.136)


@given(st.floats(0.1, 60.0), st.integers(0, 900), st.integers(300, 3000), st.integers(1, 16))
def test_fa2_answers_as_its_published_loop(rate: float, network_ms: int, slo_ms: int, most: int) -> None:
    def loop() -> tuple[int, int] | None:
        remaining = slo_ms - network_ms
        for instances, rows in product(range(1, most + 1), range(1, 9)):
            each = int(RESNET.latency_s(rows, 1.0) * 1000.0)
            if each > remaining or instances * (remaining // each) * rows < rate:
                continue
            if each + each * ceil(rate / (rows * instances)) + network_ms < 0.9 * slo_ms - 1e-6:
                return instances, rows
        return None

    fleet = fa2_solver(RESNET.latency_s, rate, network_ms / 1000.0, slo_ms / 1000.0, max_instances=most)
    assert (fleet and fleet[:2]) == loop()


def test_fa2_has_no_answer_when_nothing_is_left() -> None:
    assert fa2_solver(YOLO.latency_s, 20.0, 0.95, 1.0) is None
