"""How many of a node's cores each tenant may have: max-min fair shares, so that no tenant's words take from another's. Pure.

A tenant is whoever may say what his pods want, which on a cluster is a namespace. Among tenants only facts and wants count,
and a want counts no further than the share that is fair. Priorities and misses divide a tenant's share among his own pods
(`core/allocation/divide.py`).

Water filling: all shares rise together, from each tenant's floor on, and a tenant whose want is reached drops out. So

- no tenant has less than his want or what an equal division would leave him, whatever the others say;
- nothing is left over while anybody wants more;
- nobody can have more without somebody having less who has no more than he.

All amounts are whole millicores. O(n·log(capacity)) for n tenants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What one tenant asks of a node, for all of his pods together, in millicores.

    floor: what his pods were admitted with, of what they want; nobody pushes him below. want: what they want now. late: what
    they wanted of late or hold still; it is kept from a tenant only for what others want now beyond their fair shares.
    Raises ValueError unless 0 ≤ floor ≤ want ≤ late.
    """

    floor: int
    want: int
    late: int

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= self.want <= self.late:
            raise ValueError(f"floor, want and late may not fall, nor be negative: {self}")


@dataclass(frozen=True, slots=True)
class Share:
    """Millicores of one tenant. given: his share now. fair: what he would have at least, whatever all others wanted."""

    given: int
    fair: int


def shares(demands: Sequence[Demand], capacity: int) -> list[Share]:
    """The tenants' shares of so many millicores, in the order of the demands. Raises ValueError for a negative capacity.

    What others want beyond their fair shares takes nothing of what a tenant holds within his own. Where all of that fits, the
    rest goes to what tenants hold beyond it. Together they get `min(capacity, sum of late)`.
    """
    floors = [each.floor for each in demands]
    fair = water_fill(capacity, floors, [max(capacity, floor) for floor in floors])
    needed = [max(each.want, min(each.late, least)) for each, least in zip(demands, fair, strict=True)]
    given = water_fill(capacity, floors, needed)
    if sum(given) < capacity:
        given = water_fill(capacity, given, [each.late for each in demands])
    return [Share(*each) for each in zip(given, fair, strict=True)]


def water_fill(capacity: int, floors: Sequence[int], wants: Sequence[int]) -> list[int]:
    """The max-min fair division of `capacity` with a share of each from its floor to its want.

    Where not even the floors fit, it is the max-min fair division among these. Single millicores that cannot be divided go to
    those who come first. Raises ValueError for a negative capacity and for a want below its floor.
    """
    if capacity < 0 or any(not 0 <= floor <= want for floor, want in zip(floors, wants, strict=True)):
        raise ValueError("neither a capacity nor a floor is negative, and no want is below its floor")
    if sum(wants) <= capacity:
        return list(wants)
    if sum(floors) > capacity:
        floors, wants = [0] * len(floors), floors

    def at(level: int) -> list[int]:
        return [min(max(level, floor), want) for floor, want in zip(floors, wants, strict=True)]

    low, high = 0, capacity + 1  # at `low` it fits, at `high` it does not
    while high - low > 1:
        middle = (low + high) // 2
        if sum(at(middle)) <= capacity:
            low = middle
        else:
            high = middle
    found = at(low)
    left = capacity - sum(found)
    for i, more in enumerate(at(low + 1)):
        if left and more > found[i]:
            found[i] += 1
            left -= 1
    return found
