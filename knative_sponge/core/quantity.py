"""Durations and Kubernetes quantities as people write them; parsing and printing only."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

from knative_sponge.errors import shown

MOST_DURATION: Final = 256
"""Characters of a duration. Go prints at most 25 and reads any number."""
MOST_QUANTITY: Final = 64
"""Characters of a quantity. Kubernetes prints at most 2^63 - 1 and nine decimal places, which are 31 with sign and unit."""

# Possessive: what does not fit is given up at once. With backtracking, 16,000 digits without a unit took ten seconds.
_DURATION_PART = re.compile(r"(\d++(?:\.\d*+)?+|\.\d++)(ns|us|µs|ms|s|m|h)", re.ASCII)
_LONGEST_S: Final = (2**63 - 1) / 1e9
"""Go's longest duration, 292 years."""
_PER_SECOND: Final = {"ns": 1e9, "us": 1e6, "µs": 1e6, "ms": 1e3, "s": 1.0}
"""Divided by, as 1e-6 is no float: 5 * 1e-6 would be 4.9999999999999996e-06."""
_UNIT_S: Final = {"m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"([+]?)(\d++(?:\.\d*+)?+|\.\d++)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d++)?", re.ASCII)
_SUFFIX: Final = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


def parse_duration_s(text: str) -> float:
    """Seconds of a Go-style duration such as ``500ms``, ``1.5s`` or ``1m30s``; ``0`` needs no unit.

    Raises ValueError for anything else: negative values, more than Go's 292 years, more than `MOST_DURATION` characters.
    """
    stripped = text.strip() if len(text) <= MOST_DURATION else ""
    if stripped == "0":
        return 0.0
    total, end = 0.0, 0
    while (match := _DURATION_PART.match(stripped, end)) is not None:
        number, unit = float(match.group(1)), match.group(2)
        total += number * _UNIT_S[unit] if unit in _UNIT_S else number / _PER_SECOND[unit]
        end = match.end()
    if not stripped or end != len(stripped) or total > _LONGEST_S:
        raise ValueError(f"{shown(text)} is not a duration; write a number and a unit, such as 500ms, 1.5s or 1m30s")
    return total


def parse_quantity(text: str) -> float:
    """The number a Kubernetes quantity stands for: cores for CPU (``250m`` → 0.25), bytes for memory.

    Raises ValueError for anything else: negative values, more than `MOST_QUANTITY` characters.
    """
    if len(text) > MOST_QUANTITY:
        raise ValueError(f"{shown(text)} is too long for a quantity")
    return _parse_quantity(text)


@lru_cache(maxsize=1024)
def _parse_quantity(text: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{shown(text)} is not a quantity; write a number such as 2, 1.5, 250m, 512Mi")
    suffix = match.group(3) or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        number = float(match.group(2) + suffix)
    else:
        number = float(match.group(2)) * _SUFFIX[suffix]
    if math.isinf(number):
        raise ValueError(f"{shown(text)} is too large a quantity")
    return number


def format_cores(cores: float) -> str:
    """Cores as the shortest Kubernetes quantity on the millicore grid: ``0.25`` → ``250m``, ``2.0`` → ``2``."""
    millicores = round(cores * 1000)
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def format_bytes(amount: int) -> str:
    """Bytes as the shortest whole quantity: ``33554432`` → ``32Mi``, ``1000`` → ``1000``."""
    for suffix in ("Gi", "Mi", "Ki"):
        if amount and amount % _SUFFIX[suffix] == 0:
            return f"{int(amount // _SUFFIX[suffix])}{suffix}"
    return str(amount)


def format_duration(seconds: float) -> str:
    """Seconds as a short duration: ``0.5`` → ``500ms``, ``90.0`` → ``90s``, ``5e-6`` → ``5us``; never an exponent."""
    # A float surely keeps 15 digits of what was written; a 17-digit print would make 71 ms 71.00000000000001 ms.
    shown = Decimal(f"{seconds:.15g}")
    if seconds >= 1.0 or seconds == 0.0:
        number, unit = shown, "s"
    elif seconds >= 0.001:
        number, unit = shown * 1000, "ms"
    else:
        number, unit = shown * 1_000_000, "us"
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit
