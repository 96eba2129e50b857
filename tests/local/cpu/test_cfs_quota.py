"""Cores as quota and period."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.cfs_quota import DEFAULT_PERIOD_S, Quota, check_period


@given(st.floats(0.001, 512.0), st.floats(0.001, 1.0))
def test_a_quota_is_what_the_kernel_takes_and_never_more_than_asked(cores: float, period_s: float) -> None:
    quota = Quota.of(cores, period_s)
    assert quota.quota_us >= 1000
    assert 1000 <= quota.period_us <= 1_000_000
    if quota.quota_us > 1000:
        assert quota.cores <= cores * (1 + 1e-9)
    assert math.isclose(quota.cores, cores, rel_tol=1.1e-3)


@given(st.floats(0.1, 512.0))
def test_the_period_asked_for_is_kept_while_the_quota_reaches_the_kernels_minimum(cores: float) -> None:
    assert Quota.of(cores, DEFAULT_PERIOD_S).period_us == DEFAULT_PERIOD_S * 1e6


@pytest.mark.parametrize(
    ("cores", "quota_us", "period_us"),
    [(0.05, 1000, 20_000), (0.01, 1000, 100_000), (0.57, 5700, 10_000), (0.29, 2900, 10_000), (2.0, 20_000, 10_000)],
)
def test_sizes_people_write_come_out_exact(cores: float, quota_us: int, period_us: int) -> None:
    assert Quota.of(cores, 0.01) == Quota(quota_us, period_us)


@pytest.mark.parametrize("cores", [0.0, -1.0, 0.0009, math.nan])
def test_a_size_below_the_kernels_least_is_refused(cores: float) -> None:
    with pytest.raises(ValueError, match="at least"):
        Quota.of(cores, 0.02)


@pytest.mark.parametrize("period_s", [0.0, 0.0009, 1.1, math.nan])
def test_a_period_the_kernel_refuses_is_a_setting_error(period_s: float) -> None:
    with pytest.raises(SettingError, match="cfs-period"):
        check_period(period_s)
