"""Gives the pods of one node their targets, in the order that never takes more cores than there are. Decides no division.

Shrinks go out first. A growth goes out as soon as there is room for all of it, counting what the API server has accepted; when
nothing is shrinking any more, it takes what room there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from knative_sponge.controller.claims import Wish
from knative_sponge.controller.hand import Hand
from knative_sponge.controller.resource import Key
from knative_sponge.core.allocate import Claim, Division
from knative_sponge.core.growth import GrowthRules, grown
from knative_sponge.core.quantity import format_cores

_LEAST_STEP: Final = 0.02
_GRAIN: Final = 0.0005


def actuate(
    claims: Sequence[Claim],
    capacity: float,
    division: Division,
    hands: Mapping[Key, Hand],
    wishes: Mapping[Key, Wish],
    now: float,
    rules: GrowthRules,
) -> None:
    """Aim every hand of a node. capacity: cores of the node that its managed pods can have in all."""
    present = [
        (hand, each, division.sizes[each.key])
        for each in claims
        if isinstance(each.key, tuple) and (hand := hands.get(each.key)) is not None
    ]
    above_least = capacity - sum(each.low for each in claims)

    def aim(hand: Hand, each: Claim, size: float) -> None:
        wish = wishes.get(hand.pod.key)
        since_s = now if wish is None else wish.since_s
        if size < hand.machine.asked:  # until now it was kept
            since_s = max(since_s, min(now, hand.sized_s + rules.hold_s))
        hand.aim(size, max(size, min(each.high, each.low + above_least)), _why(each, size), since_s)

    for hand, each, size in present:
        if size <= hand.machine.asked:
            aim(hand, each, size)
    shrinking = any(size < hand.machine.asked for hand, _, size in present)
    room = capacity - sum(hand.machine.asked for hand, _, _ in present)
    spare = 0.0 if division.short else capacity - sum(size for _, _, size in present)
    growing = [(hand, each, size) for hand, each, size in present if size > hand.machine.asked]
    growing.sort(key=lambda found: (-found[1].weight, found[2] - found[0].machine.asked))
    for hand, each, size in growing:
        asked = hand.machine.asked
        if size - asked > room + _GRAIN:
            # What shrinks wakes the division when it has; until then the pod keeps what it asked for.
            given = asked if shrinking or room < _LEAST_STEP else round(asked + room - _GRAIN, 3)
        else:
            given = grown(asked, size, each.high, min(spare, room - (size - asked)), rules)
            spare -= given - size
        room -= given - asked
        aim(hand, each, given)


def _why(each: Claim, size: float) -> str:
    """Why a pod's size changes, for people."""
    if size > each.cores:
        misses = _misses(each, each.cores)
        return f"{misses:.3g} rows/s would miss" if misses >= 0.005 else "room for what may come"
    if size < each.want:
        return f"the node is short: {format_cores(each.want)} wanted"
    return "enough for what arrives"


def _misses(each: Claim, cores: float) -> float:
    for size, misses in reversed(each.curve):
        if size <= cores + _GRAIN:
            return misses
    return each.curve[0][1] if each.curve else 0.0
