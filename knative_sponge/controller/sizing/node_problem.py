"""The division of one node as a whole: a problem for each tenant, within that tenant's fair share of the cores. Pure.

A node with pods of one namespace is one problem. So is a node that can give all pods what they hold. Otherwise
`core/allocation/fairness.py` says how many cores each namespace may have, and inside a namespace misses, priorities and holds
decide as on a node of that size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from knative_sponge.controller.sizing.claim_holds import Hold, choose
from knative_sponge.core.allocation.divide import Claim, DivideRules, Division, Problem, wanted
from knative_sponge.core.allocation.fairness import Demand, Share, shares

Holding = Callable[[Hold], Sequence[Claim]]
"""All claims of the node with this hold, always in the same order."""
_LEAST: Final = 10
"""Millicores that a pod keeps in any case: `DivideRules.min_cores`."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is decided by itself: the claims of one tenant, or of all. hold: what they hold."""

    problem: Problem
    hold: Hold


class NodeProblem:
    """What is to be divided on one node. fair: cores that each tenant has at least, whatever the others say; it is empty where
    the node has one tenant."""

    def __init__(self, parts: Sequence[Part], fair: Mapping[str, float]) -> None:
        self.parts = parts
        self.fair = fair

    @cached_property
    def claims(self) -> list[Claim]:
        """Of all pods."""
        return [claim for part in self.parts for claim in part.problem.claims]

    @property
    def hold(self) -> Hold:
        """The least that anybody's claims hold."""
        holds = {part.hold for part in self.parts}
        return "nothing" if "nothing" in holds else "peak" if "peak" in holds else "size"


def node_problem(
    holding: Holding, capacity: float, rules: DivideRules, *, short: bool, tenants: Sequence[str]
) -> NodeProblem:
    """The problem of a node with so many cores. short: the node was short. tenants: whose pods are on it."""
    if len(tenants) < 2:
        problem, hold = choose(lambda hold: Problem(holding(hold), capacity, rules), short=short)
        return NodeProblem([Part(problem, hold)], {})
    held = holding("size")
    whole = Problem(held, capacity, rules)
    claims: dict[Hold, dict[str, list[Claim]]] = {"size": _by_tenant(held)}
    names = sorted(claims["size"])
    if not whole.short:
        given = _shares({"size": claims["size"], "nothing": claims["size"]}, names, whole.capacity)
        return NodeProblem([Part(whole, "size")], _fair(names, given))
    claims |= {hold: _by_tenant(holding(hold)) for hold in ("peak", "nothing")}
    given = _shares(claims, names, whole.capacity)
    parts = [
        _part({hold: claims[hold][name] for hold in claims}, share.given / 1000, rules)
        for name, share in zip(names, given, strict=True)
    ]
    return NodeProblem(parts, _fair(names, given))


def merged(divisions: Sequence[Division]) -> Division:
    """The divisions of all parts as one."""
    if len(divisions) == 1:
        return divisions[0]
    return Division(
        sizes={key: size for each in divisions for key, size in each.sizes.items()},
        misses=sum(each.misses for each in divisions),
        short=any(each.short for each in divisions),
        squeezed=any(each.squeezed for each in divisions),
        exact=all(each.exact for each in divisions),
    )


def _part(claims: Mapping[Hold, Sequence[Claim]], capacity: float, rules: DivideRules) -> Part:
    """The part of one tenant, with so many cores."""
    kept = sum(round(each.cores * 1000) for each in claims["nothing"] if not each.shrinkable)
    # Whoever is silent keeps his size, but not what is fair to others. He says nothing of his wants: he keeps what he has.
    loosen = kept > math.floor(capacity * 1000 + 1e-6)

    def problem(hold: Hold) -> Problem:
        found = claims[hold]
        return Problem([_loose(each) for each in found] if loosen else found, capacity, rules)

    return Part(*choose(problem, short=False))


def _loose(claim: Claim) -> Claim:
    if claim.shrinkable:
        return claim
    return replace(claim, shrinkable=True, want=claim.cores, low=min(claim.low, max(claim.cores, 0.001)))


def _by_tenant(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    found: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        found[claim.tenant].append(claim)
    return found


def _shares(claims: Mapping[Hold, Mapping[str, Sequence[Claim]]], names: Sequence[str], capacity: int) -> list[Share]:
    demands = []
    for name in names:
        now, held = claims["nothing"][name], claims["size"][name]
        wants = [wanted(claim) for claim in now]
        floors = [min(want, max(round(claim.admitted * 1000), _LEAST)) for want, claim in zip(wants, now, strict=True)]
        late = sum(max(want, wanted(claim)) for want, claim in zip(wants, held, strict=True))
        demands.append(Demand(sum(floors), sum(wants), late))
    return shares(demands, capacity)


def _fair(names: Sequence[str], given: Sequence[Share]) -> dict[str, float]:
    return {name: share.fair / 1000 for name, share in zip(names, given, strict=True)}
