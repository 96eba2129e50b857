"""Dividing a node's cores: what one division takes, how far it is from the best, and what simpler rules lose.

    python -m benchmarks.divide [--nodes 200]

Times are medians of CPU time in one process. Losses are over random nodes that have cores for 40 to 95 % of the wants. *convex*
curves are like those of a queue (misses fall ever more slowly with cores); *any* curves fall by random steps. The gap is to
CP-SAT's answer with 5 s a node. CP-SAT proves nearly all of its answers to be the best.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from knative_sponge.controller.sizing.claim_holds import Hold
from knative_sponge.controller.sizing.cpsat import solve
from knative_sponge.controller.sizing.node_problem import merged, node_problem
from knative_sponge.core.allocation.divide import Claim, DivideRules, Problem

EXACT = DivideRules(tolerance=0.0)
FLOOR = 0.1
MOST = 8.0


def pod(key: int, rng: random.Random, convex: bool) -> Claim:
    """A pod that wants 0.3 to 3 cores for 2 to 60 rows per second, and tells a curve of ten sizes."""
    want, rate = rng.uniform(0.3, 3.0), rng.uniform(2.0, 60.0)
    ratio = (want / FLOOR) ** (1 / 9)
    sizes = [*(FLOOR * ratio**step for step in range(9)), want]
    if convex:
        power = rng.uniform(1.0, 3.0)
        misses = [*(rate * (1 - size / want) ** power for size in sizes[:-1]), 0.0]
    else:
        misses = [*sorted((rng.uniform(0.0, rate) for _ in sizes[:-1]), reverse=True), 0.0]
    curve = tuple((round(size, 3), round(y, 3)) for size, y in zip(sizes, misses, strict=True))
    return Claim(key, round(want, 3), curve, round(rng.uniform(FLOOR, 3.0), 3), FLOOR, MOST)


def node(pods: int, rng: random.Random, convex: bool) -> tuple[list[Claim], float]:
    """Claims and the cores there are for them."""
    claims = [pod(key, rng, convex) for key in range(pods)]
    return claims, rng.uniform(0.4, 0.95) * sum(claim.want for claim in claims)


def times() -> None:
    """Print what a division costs."""
    print(
        f"{'pods':>5s}  {'all fits':>10s}  {'short, convex':>14s}  {'short, any':>12s}  {'4 namespaces':>12s}"
        "   (median CPU ms)"
    )
    for pods in (10, 100, 250):
        shown = []
        for convex, share in ((True, 1.1), (True, None), (False, None)):
            took = []
            for seed in range(30):
                claims, capacity = node(pods, random.Random(seed), convex)
                if share is not None:
                    capacity = share * sum(claim.want for claim in claims)
                begun = time.process_time()
                Problem(claims, capacity, DivideRules()).solve()
                took.append(time.process_time() - begun)
            shown.append(statistics.median(took) * 1e3)
        took = []
        for seed in range(30):
            claims, capacity = node(pods, random.Random(seed), convex=True)
            claims = [replace(claim, tenant=f"n{number % 4}") for number, claim in enumerate(claims)]
            begun = time.process_time()
            problem = node_problem(
                partial(_same, claims), capacity, DivideRules(), short=True, tenants=["n0", "n1", "n2", "n3"]
            )
            merged([part.problem.solve() for part in problem.parts])
            took.append(time.process_time() - begun)
        shown.append(statistics.median(took) * 1e3)
        print(f"{pods:5d}  {shown[0]:10.2f}  {shown[1]:14.2f}  {shown[2]:12.2f}  {shown[3]:12.2f}")


def _same(claims: Sequence[Claim], _hold: Hold) -> Sequence[Claim]:
    """Pods that hold nothing but their want."""
    return claims


def proportional(claims: Sequence[Claim], capacity: float) -> list[float]:
    """Each pod gets the same share of its want."""
    share = capacity / sum(claim.want for claim in claims)
    return [max(claim.low, claim.want * share) for claim in claims]


def first_come(claims: Sequence[Claim], capacity: float) -> list[float]:
    """One pod after the other gets its want, as long as cores are left. The floors are set aside first."""
    left = capacity - sum(claim.low for claim in claims)
    sizes = []
    for claim in claims:
        more = min(claim.want - claim.low, left)
        sizes.append(claim.low + more)
        left -= more
    return sizes


def best(problem: Problem, hint: Sequence[int]) -> float:
    """Misses of CP-SAT's answer."""
    pods = [{"xs": loss.xs, "ys": loss.ys, "size": size} for loss, size in zip(problem.losses, hint, strict=True)]
    answer = solve({"id": 0, "budget": problem.capacity, "limit_s": 5.0, "pods": pods})
    sizes = answer["sizes"] or hint
    return sum(loss.at(size) for loss, size in zip(problem.losses, sizes, strict=True))


def losses(nodes: int) -> None:
    """Print what each rule misses, and the gap to the best."""
    rules: dict[str, Callable[[Sequence[Claim], float], list[float]]] = {
        "proportional": proportional,
        "first-come": first_come,
    }
    print(
        f"\n{'curves':>7s}  {'pods':>4s}  {'gap: mean':>9s}  {'p95':>6s}  {'max':>6s}  {'proven':>6s}   misses saved against"
    )
    for convex in (True, False):
        for pods in (3, 6, 12, 30):
            gaps: list[float] = []
            proven = 0
            total = dict.fromkeys(["divide", *rules], 0.0)
            for seed in range(nodes):
                claims, capacity = node(pods, random.Random(1000 * pods + seed), convex)
                problem = Problem(claims, capacity, EXACT)
                division = problem.solve()
                least = min(best(problem, problem.greedy().sizes), division.misses)
                gaps.append((division.misses - least) / max(least, 0.1))
                proven += division.exact
                total["divide"] += division.misses
                for name, rule in rules.items():
                    sizes = [round(size * 1000) for size in rule(claims, capacity)]
                    total[name] += sum(loss.at(size) for loss, size in zip(problem.losses, sizes, strict=True))
            gaps.sort()
            saved = ", ".join(f"{name} {1 - total['divide'] / total[name]:.0%}" for name in rules)
            print(
                f"{'convex' if convex else 'any':>7s}  {pods:4d}  {statistics.mean(gaps):9.2%}"
                f"  {gaps[int(0.95 * len(gaps))]:6.2%}  {gaps[-1]:6.2%}  {proven / nodes:6.0%}   {saved}"
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200, help="random nodes of each kind")
    options = parser.parse_args()
    times()
    losses(options.nodes)


if __name__ == "__main__":
    main()
