"""Error texts: what they show of a value that a stranger wrote."""

from __future__ import annotations

import pytest

from knative_sponge.errors import SettingError, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("soon", "'soon'"),
        (b"\xff", r"b'\xff'"),
        (None, "None"),
        (500, "500"),
        (0.5, "0.5"),
        (True, "True"),
        ({"a": 1}, "a dict"),
        ([1] * 10**6, "a list"),
        (10**400, "a whole number of 1329 bits"),
        ("x" * 198, "'" + "x" * 198 + "'"),
        ("x" * 199, "'" + "x" * 197 + "'…"),
        ("\0" * 10**6, "'" + r"\x00" * 49 + "\\'…"),
    ],
    ids=str,
)
def test_a_value_is_shown_as_python_spells_it_or_cut_or_named(value: object, text: str) -> None:
    assert shown(value) == text
    assert len(shown(value)) <= 200


def test_a_shorter_cut_can_be_asked_for() -> None:
    assert shown("x" * 100, 10) == "'xxxxxxx'…"


def test_a_setting_error_repeats_little_of_name_and_value_and_keeps_both() -> None:
    error = SettingError("n" * 10**6, "v" * 10**6, "less")
    assert len(str(error)) < 500
    assert (len(error.name), error.value) == (10**6, "v" * 10**6)
