"""A large input written small: `<<60000*X-A: b\r\n>>` stands for sixty thousand fields. Repeats may lie in each other.

The fuzzer mutates the recipe and not what it stands for. So an input of a megabyte takes no longer to mutate than one of
a line, a change inside a repeat changes every one of its copies, and a reproducer can be read.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 2**20
"""Bytes of an input at most. Quadratic work on it is a thousand times the bound of a linear one."""

_MARK: Final = re.compile(rb"<<(\d{1,7})\*|>>")


def expand(recipe: bytes, most: int = MOST) -> bytes:
    """The input that a recipe stands for, cut off at `most` bytes. Every text is a recipe: a mark without its like is text."""
    levels: list[tuple[int, bytearray]] = [(1, bytearray())]
    left = 2 * most  # of what repeats write, lest a thousand of them side by side write a gigabyte
    at = 0
    for mark in _MARK.finditer(recipe):
        levels[-1][1].extend(recipe[at : mark.start()])
        at = mark.end()
        if mark[1]:
            levels.append((int(mark[1]), bytearray()))
        elif len(levels) > 1:
            left = _close(levels, left)
        else:
            levels[-1][1].extend(mark[0])
    levels[-1][1].extend(recipe[at:])
    while len(levels) > 1:
        left = _close(levels, left)
    return bytes(levels[0][1][:most])


def _close(levels: list[tuple[int, bytearray]], left: int) -> int:
    count, unit = levels.pop()
    repeated = unit * min(count, left // max(len(unit), 1))
    levels[-1][1].extend(repeated)
    return left - len(repeated)
