"""How the cores of one node are divided among its pods (docs/design.md §4.8); decides sizes, resizes nothing.

In this order: as few weighted misses as possible, then as near to what each pod wants as the cores allow, then as few
resizes as possible. While all that is wanted fits, every pod simply has what it wants. When it does not, cores first go
where a core saves most misses (`core/allocation/knapsack.py`). What is over then saves no misses that anybody expects, yet
it is what
the pods want for what they do not expect (the next urgent request, some more arrivals), so it is shared in proportion to
what each lacks, and the answer has no jump where a node begins to be short.

Cost, for n pods of k points: O(n·k) while all fits, the knapsack's when it does not. All sums are in whole millicores.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

from knative_sponge.core.allocation.knapsack import Loss, Spending, spend

_GRAIN: Final = 1e-6
"""Millicores; 0.29 · 1000 is not quite 290."""


@dataclass(frozen=True, slots=True)
class DivideRules:
    """When a size is changed. Shares lie in [0, 1).

    deadband: a pod that wants less by a smaller share keeps its size, unless another needs the cores.
    least_growth: a growth by a smaller share that saves no misses is not made.
    worth: scarce cores are not divided anew to save a smaller share of the misses.
    least: cores below which no floor is scaled when not even the floors fit.
    """

    deadband: float = 0.1
    least_growth: float = 0.02
    worth: float = 0.01
    least: float = 0.01

    def __post_init__(self) -> None:
        if not all(0 <= share < 1 for share in (self.deadband, self.least_growth, self.worth)) or self.least < 0.001:
            raise ValueError(f"impossible rules: {self}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What one pod asks of its node.

    key: the pod. want: least cores that, says the pod's own solver, lose no more than its most. curve: (cores ascending,
    rows per second expected to be missed, never rising), may be empty; linear between its points and constant beyond them,
    and above `want` nothing more is saved. cores: its present size, as patched last. low, high: bounds of its size.
    weight: of one missed row. shrinkable: False when there is no news from the pod; it then keeps its size.
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

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise ValueError(f"low {self.low} must be above 0 and at most high {self.high}")
        if not 0 <= self.want < math.inf or not 0 <= self.cores < math.inf or not 0 <= self.weight < math.inf:
            raise ValueError(f"want {self.want}, cores {self.cores}, weight {self.weight} must be finite, not negative")
        for (size, misses), (next_size, next_misses) in pairwise(self.curve):
            if not (size < next_size and misses >= next_misses):
                raise ValueError("a curve's cores rise and its misses do not")
        if self.curve and not (self.curve[0][0] >= 0 <= self.curve[-1][1] and self.curve[0][1] < math.inf):
            raise ValueError("a curve's values are finite and not negative")


@dataclass(frozen=True, slots=True)
class Division:
    """Cores of each pod.

    misses: weighted rows per second expected to be missed. short: not all that is wanted fits. squeezed: not even the
    floors fit; they were scaled down alike, though not below `DivideRules.least` and not for pods that keep their size, and
    only then may the sizes be more than there is. exact: no other division misses less (by more than `worth`).
    """

    sizes: Mapping[Hashable, float]
    misses: float
    short: bool
    squeezed: bool
    exact: bool


def divide(claims: Sequence[Claim], capacity: float, rules: DivideRules | None = None) -> Division:
    """Divide `capacity` cores among `claims`. The order of the claims does not matter; ties go by present size, then key.

    Raises ValueError when two claims have one key or the capacity is negative.
    """
    return Problem(claims, capacity, rules or DivideRules()).solve()


class Problem:
    """One node's division in millicores: what can be chosen (`losses`), and how a choice becomes a `Division`."""

    def __init__(self, claims: Sequence[Claim], capacity: float, rules: DivideRules) -> None:
        if len({claim.key for claim in claims}) < len(claims) or not 0 <= capacity < math.inf:
            raise ValueError("each pod has one claim, and a node no negative capacity")
        self.rules = rules
        self.claims = claims
        self.capacity = math.floor(capacity * 1000 + _GRAIN)
        self.present = [round(claim.cores * 1000) for claim in claims]
        lows, highs = [], []
        for claim, present in zip(claims, self.present, strict=True):
            low = math.ceil(claim.low * 1000 - _GRAIN) if claim.shrinkable else present
            lows.append(low)
            highs.append(max(low, math.floor(claim.high * 1000 + _GRAIN)) if claim.shrinkable else present)
        self.squeezed = sum(lows) > self.capacity
        if self.squeezed:
            lows = highs = self._squeeze(lows)
        self.lows, self.highs = lows, highs
        self.tops = [_top(*each) for each in zip(claims, lows, highs, strict=True)]
        self.short = self.squeezed or sum(self.tops) > self.capacity

    @cached_property
    def losses(self) -> list[Loss]:
        """What each pod misses, weighted, from its floor to what it wants."""
        return [_loss(*each) for each in zip(self.claims, self.lows, self.tops, strict=True)]

    def solve(self) -> Division:
        """See `divide`."""
        return self.finish(self.greedy() if self.short else self.all_wanted())

    def all_wanted(self) -> Spending:
        """What every pod wants; fits unless `short`."""
        return Spending(self.tops, sum(map(_lost, self.claims, self.tops)))

    def greedy(self) -> Spending:
        """Few misses with the fewest cores, in about a millisecond."""
        if self.squeezed:
            return self.all_wanted()  # nothing is left to choose
        by_rank = sorted(range(len(self.claims)), key=lambda i: (-self.present[i], repr(self.claims[i].key)))
        ranks = [0] * len(by_rank)
        for rank, i in enumerate(by_rank):
            ranks[i] = rank
        return spend(self.losses, self.capacity, ranks, enough=self.rules.worth / 10)

    def finish(self, spending: Spending) -> Division:
        """Share what is over, leave sizes alone that need not change, and say what comes of it."""
        targets = spending.sizes
        if self.short and not self.squeezed:
            targets = self._share(targets)
            sizes = self.present if self._as_good(targets) else self._settle(targets)
        else:
            sizes = self._settle(targets)
        misses = self._lost(sizes) if self.short else spending.bound  # whoever has what it wants misses no less
        return Division(
            sizes={claim.key: size / 1000 for claim, size in zip(self.claims, sizes, strict=True)},
            misses=misses,
            short=self.short,
            squeezed=self.squeezed,
            exact=misses <= spending.bound * (1 + self.rules.worth) + 1e-6,
        )

    def _squeeze(self, lows: list[int]) -> list[int]:
        """Floors scaled down alike until they fit, without the pods that keep their size; none below the least."""
        least = math.ceil(self.rules.least * 1000 - _GRAIN)
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
        """What is over, in proportion to what each pod lacks of what it wants."""
        over = self.capacity - sum(sizes)
        lacking = sum(self.tops) - sum(sizes)
        return [size + (top - size) * over // lacking for size, top in zip(sizes, self.tops, strict=True)]

    def _as_good(self, targets: list[int]) -> bool:
        """Whether the present sizes may stay, all of them, though cores are scarce."""
        present, worth = self.present, self.rules.worth
        if sum(present) > self.capacity or not all(map(self._allowed, range(len(present)), present)):
            return False
        if self._lacking(present) > self._lacking(targets) * (1 + worth) + len(present):
            return False
        return self._lost(present) <= self._lost(targets) * (1 + worth) + 1e-9

    def _settle(self, targets: list[int]) -> list[int]:
        """The targets, but for pods whose present size serves as well, as far as there are cores to leave them."""
        rules = self.rules
        sizes = list(targets)
        above: list[tuple[int, str, int]] = []
        for i, (target, present) in enumerate(zip(targets, self.present, strict=True)):
            if target == present or not self._allowed(i, present):
                continue
            if target < present:
                if target >= (1 - rules.deadband) * present:
                    above.append((present - target, repr(self.claims[i].key), i))
            elif target < (1 + rules.least_growth) * present:
                claim = self.claims[i]
                if _lost(claim, present) <= _lost(claim, target):
                    sizes[i] = present
        left = self.capacity - sum(sizes)
        for more, _, i in sorted(above):  # as many as possible
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


def _top(claim: Claim, low: int, high: int) -> int:
    """Millicores above which a pod has no use for more."""
    return min(max(low, math.ceil(claim.want * 1000 - _GRAIN)), high)


def _loss(claim: Claim, low: int, top: int) -> Loss:
    """The weighted misses of one pod from its floor to what it wants."""
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
    """Weighted rows per second missed at so many millicores, if at most what is wanted."""
    cores, left = size / 1000, None
    for right in claim.curve:
        if right[0] >= cores:
            if left is None:
                return claim.weight * right[1]
            return claim.weight * (left[1] + (right[1] - left[1]) * (cores - left[0]) / (right[0] - left[0]))
        left = right
    return 0.0 if left is None else claim.weight * left[1]
