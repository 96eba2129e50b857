"""Bounds on what a call costs: what is in proportion passes, what is not is found, and where."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fuzz.engine.cost import Bound, Meter, TooLarge, TooSlow
from fuzz.engine.session import environment, place
from knative_sponge.codec.json.array import Array

QUICK = Bound(base_s=0.05, s_per_byte=1e-6, base_bytes=2**20, bytes_per_byte=4.0)


def test_what_is_in_proportion_passes_and_is_measured() -> None:
    meter = Meter(QUICK, exact=True)
    assert meter(2**20, bytes.upper, b"a" * 2**20) == b"A" * 2**20
    assert 2**20 <= meter.bytes < 2**20 + 2**16
    assert meter.cpu_s < 0.05


def test_quadratic_work_is_cut_off_even_within_one_call_into_c() -> None:
    with pytest.raises(TooSlow, match="16,000 bytes"):
        Meter(QUICK)(16000, re.compile(r"(?:\d+)x").search, "1" * 16000)


def test_an_error_that_a_handler_made_of_it_does_not_hide_slowness() -> None:
    def swallow() -> None:
        try:
            re.compile(r"(?:\d+)x").search("1" * 100_000)
        except BaseException as error:
            raise ValueError("something else") from error

    with pytest.raises(TooSlow):
        Meter(QUICK)(100_000, swallow)


def test_a_peak_is_found_though_it_was_given_back() -> None:
    with pytest.raises(TooLarge, match="100 of input"):
        Meter(QUICK, exact=True)(100, lambda: len([b"%d" % number for number in range(100_000)]))


def test_in_a_session_a_peak_shows_without_exact_measurement() -> None:
    program = "from fuzz.engine.cost import Meter; Meter()(100, lambda: len([b'%d' % n for n in range(1_000_000)]))"
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert "TooLarge: " in run.stderr
    assert "100 of input" in run.stderr


def test_what_would_take_the_whole_machine_is_stopped_where_it_asks_for_it() -> None:
    with pytest.raises(TooLarge, match="address space"):
        Meter(QUICK)(100, lambda: bytearray(2**32))


def test_what_a_call_raises_is_its_own_and_is_paid_for() -> None:
    meter = Meter(QUICK, exact=True)
    with pytest.raises(ValueError, match="invalid literal"):
        meter(1, int, "x" * 1000)
    assert meter.bytes > 0


def test_a_finding_is_named_after_the_function_of_the_product() -> None:
    with pytest.raises(ValueError, match="fewer") as caught:
        Meter(QUICK)(3, Array(b"[1]", 0, 3, flat=True).cut_flat, [9])
    assert place(caught.value) == "codec.json.array.Array.cut_flat"
