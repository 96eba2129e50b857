"""The limits that the page about settings tells are those that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from knative_sponge.codec.json import skeleton, text
from knative_sponge.codec.v2 import codec
from knative_sponge.core.quantity import MOST_QUANTITY
from knative_sponge.settings.serving import MOST_TEXT

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
ROWS = dict(re.findall(r"^\| ([^|`]*(?:`[^|]*)?) \| ([\d ]+(?:MiB)?)[^|]* \| [^|]* \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize(
    ("beginning", "most"),
    [
        ("strings", f"{skeleton._MOST_STRINGS:_}"),
        ("members of one object", f"{text._MOST_WALKED:_}"),
        ("members at any depth", f"{text._MOST_KEYS:_}"),
        ("`NaN`", f"{text._MOST_NONFINITE:_}"),
        ("dimensions of", str(skeleton.MOST_DIMENSIONS)),
        ("members of a CloudEvent", f"{text._MOST_WALKED:_}"),
        ("outputs times", f"{codec._MOST_SHARES:_}"),
        ("bytes that every share", f"{text._MOST_REPEATED // 2**20} MiB"),
    ],
)
def test_the_table_has_the_codes_own_number(beginning: str, most: str) -> None:
    (told,) = [number for name, number in ROWS.items() if name.startswith(beginning)]
    assert told.strip() == most.replace("_", " ")


def test_the_lengths_of_values_are_told() -> None:
    assert f"No value is longer than {MOST_TEXT} characters" in PAGE
    assert f"no quantity longer than {MOST_QUANTITY} characters" in PAGE
