"""Durations and quantities as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.quantity import format_bytes, format_cores, format_duration, parse_duration_s, parse_quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("1.5s", 1.5),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("250us", 250e-6),
        ("250µs", 250e-6),
        ("40ns", 40e-9),
        ("0", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "-1s", "1 s", "s", "1x", "1s2", "½s", "٣s", "1e3ms", "inf", "9" * 400 + "s", "9223372037s"]
)
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", 0.25), ("2", 2.0), ("0.5", 0.5), ("512Mi", 512 * 2**20), ("1G", 1e9), ("1e3", 1000.0), ("1Ei", 2.0**60)],
)
def test_quantities(text: str, number: float) -> None:
    assert parse_quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "-1", "1 Mi", "Mi", "1mm", "0x10", "nan"])
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def test_the_longest_duration_is_that_of_go() -> None:
    assert parse_duration_s("9223372036s") == 9223372036.0
    assert parse_duration_s(format_duration(9223372036.0)) == 9223372036.0


def test_what_is_longer_than_kubernetes_prints_is_refused_unread() -> None:
    assert parse_quantity("9223372036854775807999999999n") == pytest.approx(2**63)
    with pytest.raises(ValueError, match="too long"):
        parse_quantity("1" * 65)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(32 * 2**20, "32Mi"), (2**30, "1Gi"), (3 * 2**10, "3Ki"), (1000, "1000"), (1025, "1025"), (0, "0")],
)
def test_bytes_are_shown_as_short_as_they_can_be_read_back(amount: int, text: str) -> None:
    assert format_bytes(amount) == text
    assert parse_quantity(text) == amount


def test_a_quantity_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_quantity("1e400")


@given(st.integers(1, 10**6))
def test_cores_on_the_millicore_grid_survive_being_written_and_read(millicores: int) -> None:
    assert round(parse_quantity(format_cores(millicores / 1000)) * 1000) == millicores


@given(st.integers(1, 10**6))
def test_durations_survive_being_written_and_read(milliseconds: int) -> None:
    assert parse_duration_s(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize("text", ["999h", "1000000s", "1234.567s", "1ns", "100us", "0.0004ms", "500ms", "10s", "100s"])
def test_a_duration_of_any_length_survives_printing(text: str) -> None:
    shown = format_duration(parse_duration_s(text))
    assert "e" not in shown
    assert parse_duration_s(shown) == pytest.approx(parse_duration_s(text), rel=1e-12)


@given(st.integers(1, 999_999))
def test_a_duration_is_printed_as_it_was_written(amount: int) -> None:
    assert format_duration(parse_duration_s(f"{amount}s")) == f"{amount}s"
    if amount < 1000:
        assert format_duration(parse_duration_s(f"{amount}ms")) == f"{amount}ms"
        assert format_duration(parse_duration_s(f"{amount}us")) == f"{amount}us"
        assert parse_duration_s(f"{amount}us") == amount / 1e6


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0s"), (0.999, "999ms"), (1.0, "1s"), (120.0, "120s"), (0.001, "1ms"), (5e-6, "5us")],
)
def test_the_unit_is_the_largest_that_leaves_at_least_one(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown
