"""Claims of pods to divide a node among, made up by hand and by hypothesis, and what they miss by their own word."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from knative_sponge.core.allocation.divide import Claim, DivideRules, Division, Problem

Curve = tuple[tuple[float, float], ...]


def divide(claims: Sequence[Claim], capacity: float, rules: DivideRules | None = None) -> Division:
    """The division by the greedy rule."""
    return Problem(claims, capacity, rules or DivideRules()).solve()


def linear(rate: float, need: float) -> Curve:
    """All is missed at no cores, nothing from `need` on."""
    return ((0.0, rate), (need, 0.0))


def pod(
    key: str, want: float, cores: float = 1.0, curve: Curve | None = None, low: float = 0.1, weight: float = 1.0
) -> Claim:
    return Claim(key, want, linear(10.0, want) if curve is None else curve, cores, low, 8.0, weight)


def missed(claim: Claim, cores: float) -> float:
    """Weighted rows per second, straight from what a Claim says."""
    x = min(cores, max(claim.want, claim.low) if claim.shrinkable else claim.cores)
    points = claim.curve
    if not points:
        return 0.0
    if x <= points[0][0]:
        return claim.weight * points[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return claim.weight * (y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return claim.weight * points[-1][1]


milli = st.integers(10, 4000).map(lambda size: size / 1000)


@st.composite
def curves(draw: st.DrawFn, convex: bool = False) -> Curve:
    steps = draw(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 40)), max_size=6))
    if convex:
        steps.sort(key=lambda step: -step[1] / step[0])
    start = 0 if convex else draw(st.integers(0, 300))  # before its first point a curve is level
    xs = itertools.accumulate([start, *[length for length, _ in steps]])
    left = itertools.accumulate([sum(saved for _, saved in steps), *[-saved for _, saved in steps]])
    return tuple((x / 1000, float(y)) for x, y in zip(xs, left, strict=True))


@st.composite
def nodes(draw: st.DrawFn, convex: bool = False, pinned: bool = True) -> list[Claim]:
    """Claims that a node could hold."""
    claims = []
    for key in range(draw(st.integers(1, 6))):
        low, high = sorted((draw(milli), draw(milli)))
        claims.append(
            Claim(
                key,
                draw(milli),
                draw(curves(convex)),
                draw(milli),
                low,
                high,
                weight=draw(st.sampled_from([0.0, 0.5, 1.0, 4.0])),
                shrinkable=not pinned or draw(st.integers(0, 5)) > 0,
            )
        )
    return claims


capacities = st.integers(0, 16000).map(lambda size: size / 1000)


def floors(claims: Sequence[Claim]) -> float:
    return sum(claim.low if claim.shrinkable else claim.cores for claim in claims)


def after(claims: Sequence[Claim], division: Division) -> list[Claim]:
    """The same pods once they have been resized."""
    return [replace(claim, cores=division.sizes[claim.key]) for claim in claims]
