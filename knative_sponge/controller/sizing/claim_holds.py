"""How much of the past the pods of a node keep in their claims: as much as fits. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from knative_sponge.core.allocation.divide import Problem

Hold = Literal["size", "peak", "nothing"]
"""A claim is for the size that the pod was given lately, for its peak, or for no more than its want."""


def choose(holding: Callable[[Hold], Problem], *, short: bool) -> tuple[Problem, Hold]:
    """The problem to solve, and what its claims hold.

    The first hold counts whose claims all fit: the size, then the peak, then nothing. Where the wants fit and the peaks do not,
    each pod gets its want, and the rest is shared by what each lacks of its peak. So no pod has to live on its want alone.

    holding: the problem whose claims have this hold. short: the node was short, so the wants are tried first.
    """
    now = holding("nothing") if short else None
    if now is not None and now.short:
        return now, "nothing"
    if not (problem := holding("size")).short:
        return problem, "size"
    if not (problem := holding("peak")).short:
        return problem, "peak"
    if (now := now or holding("nothing")).short:
        return now, "nothing"
    pairs = zip(problem.claims, now.claims, strict=True)
    floors = [replace(late, low=min(max(late.low, present.want), late.high)) for late, present in pairs]
    return Problem(floors, problem.capacity / 1000, problem.rules), "peak"
