"""How far a change of size has come, in the words that a proxy is told it with."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """PATCHED: the size was asked for and will be in force soon. ACTUATED: it is in force."""

    PATCHED = "patched"
    ACTUATED = "actuated"
