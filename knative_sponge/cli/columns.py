"""Plain text in columns, for terminals and pipes; it knows nothing of the cells' meaning."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """One line per row, each column as wide as its widest cell; the first `left` columns and the last are flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cells(row, widths, left)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    last = len(row) - 1
    return [
        cell.ljust(width) if i < left or i == last else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
