"""Durations and Kubernetes quantities as people write them; parsing and printing only."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_PER_SECOND: Final = {"ns": 1e9, "us": 1e6, "µs": 1e6, "ms": 1e3, "s": 1.0}
"""Divided by, as 1e-6 is no float: 5 * 1e-6 would be 4.9999999999999996e-06."""
_UNIT_S: Final = {"m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"([+]?)(\d+(?:\.\d*)?|\.\d+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?")
_SUFFIX: Final = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


def parse_duration_s(text: str) -> float:
    """Seconds of a Go-style duration such as ``500ms``, ``1.5s`` or ``1m30s``; ``0`` needs no unit.

    Raises ValueError for anything else, negative values included.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    total, end = 0.0, 0
    for match in _DURATION_PART.finditer(stripped):
        if match.start() != end:
            break
        number, unit = float(match.group(1)), match.group(2)
        total += number * _UNIT_S[unit] if unit in _UNIT_S else number / _PER_SECOND[unit]
        end = match.end()
    if not stripped or end != len(stripped) or math.isinf(total):
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as 500ms, 1.5s or 1m30s")
    return total


@lru_cache(maxsize=1024)
def parse_quantity(text: str) -> float:
    """The number a Kubernetes quantity stands for: cores for CPU (``250m`` → 0.25), bytes for memory.

    Raises ValueError for anything else, negative values included.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write a number such as 2, 1.5, 250m, 512Mi")
    suffix = match.group(3) or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        number = float(match.group(2) + suffix)
    else:
        number = float(match.group(2)) * _SUFFIX[suffix]
    if math.isinf(number):
        raise ValueError(f"{text!r} is too large a quantity")
    return number


def format_cores(cores: float) -> str:
    """Cores as the shortest Kubernetes quantity on the millicore grid: ``0.25`` → ``250m``, ``2.0`` → ``2``."""
    millicores = round(cores * 1000)
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


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
