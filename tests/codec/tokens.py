"""JSON read and written with every number as the characters that came, by the standard library alone."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from math import prod
from typing import Any

TOKENS = (
    "0", "-0", "-0.0", "1", "7", "1.10", "1e400", "-1E-400", "12345678901234567890", "0.1", "3.14159274", "1e+05",
    "-2.5e-3", "100000000000000000000000.0",
)  # fmt: skip
NONFINITE = ("NaN", "Infinity", "-Infinity")
STRINGS = ("", "a", "a,b", '"', "\\", "],[", '{"data":[1,2]}', "é", "\u2028", "\U0001f600", "NaN", "\x7f0", "tfnSK")


class Number(str):
    """A number as its characters."""

    __slots__ = ()


def read(text: bytes | str) -> Any:
    """The value of a JSON text, numbers as `Number`, NaN and Infinity included."""
    return json.loads(text, parse_float=Number, parse_int=Number, parse_constant=Number)


def write(value: Any, rng: random.Random | None = None, *, ascii_only: bool = True) -> str:
    """JSON of a value; with `rng` white space anywhere and the keys of requests and inputs in any order."""

    def blank() -> str:
        return rng.choice(("", "", "", " ", "\n", "\t ", "  ")) if rng else ""

    def spell(item: Any) -> str:
        return blank() + write(item, rng, ascii_only=ascii_only) + blank()

    if isinstance(value, Number):
        return value
    if isinstance(value, list):
        return "[" + (",".join(map(spell, value)) or blank()) + "]"
    if isinstance(value, dict):
        items = list(value.items())
        if rng and ("inputs" in value or "shape" in value):
            rng.shuffle(items)
        return "{" + (",".join(f"{spell(key)}:{spell(item)}" for key, item in items) or blank()) + "}"
    return json.dumps(value, ensure_ascii=ascii_only)


def nest(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    """Elements as arrays in arrays."""
    if not shape:
        return flat[0]
    step = prod(shape[1:])
    return [nest(flat[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]
