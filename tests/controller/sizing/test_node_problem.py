"""One node's cores among several namespaces: no namespace's words cost another anything below its fair share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.sizing.claim_holds import Hold, choose
from knative_sponge.controller.sizing.node_problem import NodeProblem, merged, node_problem
from knative_sponge.core.allocation.divide import Claim, DivideRules, Division, Problem
from tests.core.allocation.claims import capacities, nodes, pod

RULES = DivideRules()


def divided(claims: Sequence[Claim], capacity: float, short: bool = False) -> tuple[NodeProblem, Division]:
    tenants = sorted({claim.tenant for claim in claims})
    problem = node_problem(lambda _hold: claims, capacity, RULES, short=short, tenants=tenants)
    return problem, merged([part.problem.solve() for part in problem.parts])


def of(claims: Sequence[Claim], tenant: str, **changes: object) -> list[Claim]:
    return [replace(each, key=(tenant, each.key), tenant=tenant, **changes) for each in claims]  # type: ignore[arg-type]


def total(division: Division, tenant: str) -> float:
    return sum(size for key, size in division.sizes.items() if isinstance(key, tuple) and key[0] == tenant)


@given(nodes(), capacities, st.booleans())
def test_one_namespace_alone_is_divided_as_ever(claims: list[Claim], capacity: float, short: bool) -> None:
    alone = of(claims, "a", admitted=1.0)
    before, hold = choose(lambda _hold: Problem(alone, capacity, RULES), short=short)
    problem, division = divided(alone, capacity, short)
    assert problem.hold == hold
    assert division == before.solve()


@st.composite
def lies(draw: st.DrawFn) -> list[Claim]:
    """What pods of one namespace may say."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        low = draw(st.sampled_from([0.01, 0.1, 7.9]))
        want = draw(st.sampled_from([0.0, 1.0, 8.0]))
        misses = draw(st.sampled_from([0.0, 1.0, 1e6, 1e12]))
        curve = ((0.01, misses), (8.0, 0.0)) if misses else ()
        weight = 2.0 ** draw(st.sampled_from([-5, 0, 4]))
        shrinkable = draw(st.booleans())
        found.append(Claim(number, want, curve, draw(st.sampled_from([0.1, 4.0, 7.9])), low, 8.0, weight, shrinkable))
    return found


@given(said=lies(), honest=nodes(), admitted=st.sampled_from([0.0, 0.5, 2.0]))
def test_whatever_a_neighbour_says_a_namespace_has_what_it_wants_or_its_fair_share(
    said: list[Claim], honest: list[Claim], admitted: float
) -> None:
    ours, theirs = of([replace(each, shrinkable=True) for each in honest], "a", admitted=admitted), of(said, "b")
    problem, division = divided([*ours, *theirs], 8.0)
    wanted = sum(min(max(each.want, each.low), each.high) for each in ours)
    floor = sum(min(max(each.want, each.low), each.high, max(admitted, 0.01)) for each in ours)
    fair = 4.0 - 0.01 * len(theirs)  # a pod keeps a hundredth of a core in any case
    assert problem.fair["a"] >= min(fair, 8.0) or floor > fair
    # A shrink by less than a tenth is not made, nor a growth by less than a fiftieth; neither takes from a neighbour.
    assert total(division, "a") >= min(wanted, max(fair, min(floor, 8.0))) * 0.98 - 0.01


@given(said=lies(), honest=nodes())
def test_all_that_is_wanted_is_given_out_and_no_more_than_there_is(said: list[Claim], honest: list[Claim]) -> None:
    claims = [*of(honest, "a"), *of(said, "b")]
    _, division = divided(claims, 8.0)
    least = sum(0.01 for _ in claims)
    assert sum(division.sizes.values()) <= 8.0 + least + 1e-9
    wanted = sum(min(max(each.want, each.low), each.high) if each.shrinkable else each.cores for each in claims)
    assert sum(division.sizes.values()) >= min(8.0, wanted) * 0.98 - 0.01 * len(claims)


def test_a_pod_that_wants_what_it_was_admitted_with_is_not_pushed_below_it_by_other_namespaces() -> None:
    """The equal share would be 2 cores."""
    large = of([pod("a", want=3.0, cores=3.0)], "a", admitted=3.0)
    others = [claim for name in "bcd" for claim in of([pod(name, want=9.0, weight=16.0)], name, admitted=0.5)]
    problem, division = divided([*large, *others], 8.0)
    assert total(division, "a") == 3.0
    assert problem.fair == {"a": 3.0, "b": 1.667, "c": 1.667, "d": 1.666}


def test_what_a_pod_does_not_want_of_its_admitted_size_is_others() -> None:
    idle = of([pod("a", want=0.2, cores=3.0)], "a", admitted=3.0)
    _, division = divided([*idle, *of([pod("b", want=9.0)], "b")], 4.0)
    assert total(division, "a") == 0.2
    assert total(division, "b") == 3.8


def test_inside_a_namespace_misses_and_priorities_decide() -> None:
    pods = [
        *of([pod("low", want=4.0, weight=1.0), pod("high", want=4.0, weight=16.0)], "a"),
        *of([pod("other", want=8.0, weight=0.01)], "b"),
    ]
    _, division = divided(pods, 8.0)
    assert total(division, "b") == 4.0
    assert division.sizes["a", "high"] > 3.8


def test_a_silent_pod_keeps_what_is_fair_of_its_size_and_no_more() -> None:
    """Or whoever has grown on an idle node would keep it by saying nothing any more."""
    silent = [replace(each, shrinkable=False) for each in of([pod("a", want=7.0, cores=7.0)], "a")]
    _, division = divided([*silent, *of([pod("b", want=6.0, cores=1.0)], "b")], 8.0)
    assert total(division, "a") == total(division, "b") == 4.0
    _, division = divided([*silent, *of([pod("b", want=1.0, cores=1.0)], "b")], 8.0)
    assert total(division, "a") == 7.0


def test_a_namespace_keeps_what_it_holds_within_its_fair_share_although_another_wants_more_than_there_is() -> None:
    def holding(hold: Hold) -> list[Claim]:
        cores = {"size": 3.0, "peak": 2.0, "nothing": 1.0}[hold]
        return [*of([pod("a", want=cores, cores=3.0)], "a"), *of([pod("b", want=8.0, cores=1.0)], "b")]

    problem = node_problem(holding, 8.0, RULES, short=True, tenants=["a", "b"])
    division = merged([part.problem.solve() for part in problem.parts])
    assert total(division, "a") == 3.0
    assert total(division, "b") == 5.0
    assert problem.hold == "nothing"
