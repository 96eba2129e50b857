"""How the cores of one node are divided among its pods (docs/design.md §4.8); decides sizes, resizes nothing.

The aims, in this order: as few weighted misses as possible; sizes as near to each pod's want as the cores allow; as few
resizes as possible.

- All wants fit: every pod has its want.
- They do not fit: cores go where one core saves most misses (`core/allocation/knapsack.py`). Cores that are left then save
  no expected miss. Pods still want them for what nobody expects: the next urgent request, some more arrivals. So these cores
  are shared in proportion to what each pod lacks of its want. That makes the answer continuous where a node becomes short.

Cost, for n pods of k points: O(n·k) while all fits, the knapsack's cost otherwise. All sums are in whole millicores.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

from knative_sponge.core.allocation.knapsack import Loss, Spending, spend

_ROUNDING: Final = 1e-6
"""Millicores. Floating point makes 0.29 · 1000 a little less than 290."""


@dataclass(frozen=True, slots=True)
class DivideRules:
    """When a size is changed. Shares lie in [0, 1).

    deadband: a shrink by a smaller share of the size is not made, unless another pod needs the cores.
    min_growth: a growth by a smaller share of the size is not made when it saves no misses.
    tolerance: scarce cores are not divided anew when that saves a smaller share of the misses.
    min_cores: when not even the floors fit, no floor is scaled down below this.
    """

    deadband: float = 0.1
    min_growth: float = 0.02
    tolerance: float = 0.01
    min_cores: float = 0.01

    def __post_init__(self) -> None:
        shares = (self.deadband, self.min_growth, self.tolerance)
        if not all(0 <= share < 1 for share in shares) or self.min_cores < 0.001:
            raise ValueError(f"impossible rules: {self}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What one pod asks of its node.

    key: the pod.
    want: the least cores with which the pod misses no more than with the most it may have, by its own estimate.
    curve: points (cores, rows per second expected to be missed); cores rise and misses never do. It may be empty. It is
        linear between its points and constant beyond them. Cores above `want` save nothing more.
    cores: the pod's present size, as patched last.
    low, high: bounds of its size.
    weight: of one missed row.
    shrinkable: False for a pod that is silent; it keeps its size.
    tenant: whose pod it is. A problem is one tenant's; who gets how much of a node is `core/allocation/fairness.py`'s.
    admitted: cores with which it was admitted to its node.

    Raises ValueError for sizes, weights and curves that cannot be.
    """

    key: Hashable
    want: float
    curve: tuple[tuple[float, float], ...]
    cores: float
    low: float
    high: float
    weight: float = 1.0
    shrinkable: bool = True
    tenant: str = ""
    admitted: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise ValueError(f"low {self.low} must be above 0 and at most high {self.high}")
        if not (0 <= self.want < math.inf and 0 <= self.cores < math.inf and 0 <= self.weight < math.inf):
            raise ValueError(f"want {self.want}, cores {self.cores}, weight {self.weight} must be finite, not negative")
        if not 0 <= self.admitted < math.inf:
            raise ValueError(f"admitted {self.admitted} must be finite, not negative")
        for (size, misses), (next_size, next_misses) in pairwise(self.curve):
            if not (size < next_size and misses >= next_misses):
                raise ValueError("a curve's cores rise and its misses do not")
        if self.curve and not (self.curve[0][0] >= 0 <= self.curve[-1][1] and self.curve[0][1] < math.inf):
            raise ValueError("a curve's values are finite and not negative")


@dataclass(frozen=True, slots=True)
class Division:
    """Cores of each pod.

    misses: weighted rows per second expected to be missed.
    short: the wants do not all fit.
    squeezed: not even the floors fit. All floors were scaled down by one factor, but none below `DivideRules.min_cores`, and
        none of a pod that keeps its size. Only then may the sizes add up to more than the capacity.
    exact: no other division misses less, by more than `DivideRules.tolerance`.
    """

    sizes: Mapping[Hashable, float]
    misses: float
    short: bool
    squeezed: bool
    exact: bool


class Problem:
    """One node's cores to divide among claims: what can be chosen (`losses`), and how a choice becomes a `Division`.

    Cores outside, whole millicores inside. The order of the claims does not matter: ties go by present size, then key.
    Raises ValueError when two claims have one key, and for a negative capacity.
    """

    def __init__(self, claims: Sequence[Claim], capacity: float, rules: DivideRules) -> None:
        if len({claim.key for claim in claims}) < len(claims) or not 0 <= capacity < math.inf:
            raise ValueError("each pod has one claim, and a node no negative capacity")
        self.rules = rules
        self.claims = claims
        self.capacity = math.floor(capacity * 1000 + _ROUNDING)
        self.present = [round(claim.cores * 1000) for claim in claims]
        lows, highs = [], []
        for claim in claims:
            low, high = _bounds(claim)
            lows.append(low)
            highs.append(high)
        self.squeezed = sum(lows) > self.capacity
        if self.squeezed:
            lows = highs = self._squeeze(lows)
        self.lows, self.highs = lows, highs
        self.tops = [_top(*each) for each in zip(claims, lows, highs, strict=True)]
        self.short = self.squeezed or sum(self.tops) > self.capacity

    @cached_property
    def losses(self) -> list[Loss]:
        """The weighted misses of each pod, from its floor to its want."""
        return [_loss(*each) for each in zip(self.claims, self.lows, self.tops, strict=True)]

    def solve(self) -> Division:
        """The division without an exact solver."""
        return self.finish(self.greedy() if self.short else self.all_wanted())

    def all_wanted(self) -> Spending:
        """Every pod's want. It fits unless `short`."""
        return Spending(self.tops, sum(map(_lost, self.claims, self.tops)))

    def greedy(self) -> Spending:
        """Few misses with the fewest cores that do, in about a millisecond."""
        if self.squeezed:
            return self.all_wanted()  # every size is fixed
        by_rank = sorted(range(len(self.claims)), key=lambda i: (-self.present[i], repr(self.claims[i].key)))
        ranks = [0] * len(by_rank)
        for rank, i in enumerate(by_rank):
            ranks[i] = rank
        return spend(self.losses, self.capacity, ranks, enough=self.rules.tolerance / 10)

    def finish(self, spending: Spending) -> Division:
        """The division that follows from a spending: spare cores are shared, and sizes that serve as well stay."""
        targets = spending.sizes
        if self.short and not self.squeezed:
            targets = self._share(targets)
            sizes = self.present if self._present_serves_as_well(targets) else self._keep_near_sizes(targets)
        else:
            sizes = self._keep_near_sizes(targets)
        misses = self._lost(sizes) if self.short else spending.bound  # more than its want saves a pod nothing
        return Division(
            sizes={claim.key: size / 1000 for claim, size in zip(self.claims, sizes, strict=True)},
            misses=misses,
            short=self.short,
            squeezed=self.squeezed,
            exact=misses <= spending.bound * (1 + self.rules.tolerance) + 1e-6,
        )

    def _squeeze(self, lows: list[int]) -> list[int]:
        """Floors scaled down by one factor until they fit, but none below `min_cores`. Pods that keep their size stay."""
        least = math.ceil(self.rules.min_cores * 1000 - _ROUNDING)
        moved = [i for i, claim in enumerate(self.claims) if claim.shrinkable and lows[i] > least]
        squeezed = list(lows)
        while moved:
            left = self.capacity - sum(squeezed) + sum(squeezed[i] for i in moved)
            total = sum(lows[i] for i in moved)
            for i in moved:
                squeezed[i] = max(least, lows[i] * max(0, left) // total)
            at_least = [i for i in moved if squeezed[i] == least]
            if not at_least or sum(squeezed) <= self.capacity:
                break
            moved = [i for i in moved if squeezed[i] > least]
        return squeezed

    def _share(self, sizes: list[int]) -> list[int]:
        """Spare cores added to the sizes, in proportion to what each pod lacks of its want."""
        over = self.capacity - sum(sizes)
        lacking = sum(self.tops) - sum(sizes)
        return [size + (top - size) * over // lacking for size, top in zip(sizes, self.tops, strict=True)]

    def _present_serves_as_well(self, targets: list[int]) -> bool:
        """Whether all present sizes may stay although cores are scarce."""
        present, tolerance = self.present, self.rules.tolerance
        if sum(present) > self.capacity or not all(map(self._allowed, range(len(present)), present)):
            return False
        if self._lacking(present) > self._lacking(targets) * (1 + tolerance) + len(present):
            return False
        return self._lost(present) <= self._lost(targets) * (1 + tolerance) + 1e-9

    def _keep_near_sizes(self, targets: list[int]) -> list[int]:
        """The targets; a pod whose present size serves as well keeps it, as far as the capacity allows."""
        rules = self.rules
        sizes = list(targets)
        above: list[tuple[int, str, int]] = []
        for i, (target, present) in enumerate(zip(targets, self.present, strict=True)):
            if target == present or not self._allowed(i, present):
                continue
            if target < present:
                if target >= (1 - rules.deadband) * present:
                    above.append((present - target, repr(self.claims[i].key), i))
            elif target < (1 + rules.min_growth) * present:
                claim = self.claims[i]
                if _lost(claim, present) <= _lost(claim, target):
                    sizes[i] = present
        left = self.capacity - sum(sizes)
        for more, _, i in sorted(above):  # the cheapest first, so that as many as possible keep their size
            if more > left:
                break
            sizes[i] = self.present[i]
            left -= more
        return sizes

    def _allowed(self, i: int, size: int) -> bool:
        return self.lows[i] <= size <= self.highs[i]

    def _lacking(self, sizes: list[int]) -> int:
        return sum(top - size for size, top in zip(sizes, self.tops, strict=True) if size < top)

    def _lost(self, sizes: list[int]) -> float:
        return sum(loss.at(size) for loss, size in zip(self.losses, sizes, strict=True))


def wanted(claim: Claim) -> int:
    """The pod's want in millicores, within the bounds of its size."""
    return _top(claim, *_bounds(claim))


def _bounds(claim: Claim) -> tuple[int, int]:
    """Least and most millicores."""
    if not claim.shrinkable:
        present = round(claim.cores * 1000)
        return present, present
    low = math.ceil(claim.low * 1000 - _ROUNDING)
    return low, max(low, math.floor(claim.high * 1000 + _ROUNDING))


def _top(claim: Claim, low: int, high: int) -> int:
    """The pod's want in millicores, within its bounds."""
    return min(max(low, math.ceil(claim.want * 1000 - _ROUNDING)), high)


def _loss(claim: Claim, low: int, top: int) -> Loss:
    """The weighted misses of one pod from its floor to its want."""
    weight, curve = claim.weight, claim.curve
    xs, ys = [low], [_lost(claim, low)]
    if low == top:
        return Loss((low,), (ys[0],))
    for cores, misses in curve:
        x = round(cores * 1000)
        if xs[-1] < x < top:
            xs.append(x)
            ys.append(weight * misses)
    xs.append(top)
    ys.append(_lost(claim, top))
    return Loss(tuple(xs), tuple(ys))


def _lost(claim: Claim, size: int) -> float:
    """Weighted rows per second missed at `size` millicores, which is at most the want."""
    cores, left = size / 1000, None
    for right in claim.curve:
        if right[0] >= cores:
            if left is None:
                return claim.weight * right[1]
            return claim.weight * (left[1] + (right[1] - left[1]) * (cores - left[0]) / (right[0] - left[0]))
        left = right
    return 0.0 if left is None else claim.weight * left[1]
