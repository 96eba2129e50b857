"""What the pods of a node may hold on to when it is divided: as much as fits. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from knative_sponge.core.allocation.divide import Problem

Hold = Literal["size", "need", "nothing"]
"""The size that a pod was given lately, the largest need of late, or nothing but its need now."""


def choose(holding: Callable[[Hold], Problem], *, short: bool) -> tuple[Problem, Hold]:
    """The problem to solve, and what it holds on to.

    Where the needs of late do not all fit but those of now do, each gets the latter, and what is over is shared by what each
    lacks of the former, so that nobody lives from hand to mouth. holding: the problem with this hold. short: most
    likely there is nothing to hold on to, so that is looked at first.
    """
    now = holding("nothing") if short else None
    if now is not None and now.short:
        return now, "nothing"
    if not (problem := holding("size")).short:
        return problem, "size"
    if not (problem := holding("need")).short:
        return problem, "need"
    if (now := now or holding("nothing")).short:
        return now, "nothing"
    pairs = zip(problem.claims, now.claims, strict=True)
    floors = [replace(late, low=min(max(late.low, present.want), late.high)) for late, present in pairs]
    return Problem(floors, problem.capacity / 1000, problem.rules), "need"
