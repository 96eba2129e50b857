"""The solver's process: it finds what the greedy rule misses, and whatever becomes of it the division stands."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.controller.sizing.cpsat import Refiner, RefineRules, solve
from knative_sponge.core.allocation.divide import Claim, DivideRules, Division, Problem
from tests.controller.revision_kit import run, until

RULES = DivideRules(tolerance=0.0)
PATIENT = RefineRules(limit_s=5.0, deadline_s=15.0)


def node(seed: int, count: int = 5) -> tuple[list[Claim], float]:
    """Pods whose curves are anything but convex, on a node that has cores for some."""
    rng = random.Random(seed)
    claims = []
    for key in range(count):
        sizes = sorted(rng.sample(range(100, 2000), 7))
        misses = sorted((rng.uniform(0.0, 30.0) for _ in sizes), reverse=True)
        curve = tuple((size / 1000, y) for size, y in zip(sizes, misses, strict=True))
        claims.append(Claim(key, sizes[-1] / 1000, curve, rng.uniform(0.1, 2.0), 0.1, 4.0))
    return claims, rng.uniform(0.4, 0.9) * sum(claim.want for claim in claims)


def unproven(seed: int = 0) -> tuple[list[Claim], float, Division]:
    """A division that the greedy rule cannot prove best."""
    while True:
        claims, capacity = node(seed)
        greedy = Problem(claims, capacity, RULES).solve()
        if not greedy.exact:
            return claims, capacity, greedy
        seed += 1


@asynccontextmanager
async def refiner(rules: RefineRules = PATIENT) -> AsyncIterator[Refiner]:
    made = Refiner(rules)
    try:
        yield made
    finally:
        await made.close()


def scripted(script: str, deadline_s: float = 0.4) -> RefineRules:
    """A process that gets ready and then does something else than solving."""
    ready = "import sys, time; print('{\"ready\": true}', flush=True);"
    command = (sys.executable, "-S", "-c", f"{ready} line = sys.stdin.readline(); {script}")
    return RefineRules(limit_s=0.1, deadline_s=deadline_s, again_s=0.0, command=command)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_solver_proves_or_betters_what_the_greedy_rule_found() -> None:
    async def body() -> None:
        gaps = []
        async with refiner() as solver:
            for seed in range(40):
                claims, capacity = node(seed)
                greedy = Problem(claims, capacity, RULES).solve()
                refined = await solver.refine(claims, capacity, RULES, greedy)
                assert refined.exact
                assert refined.misses <= greedy.misses
                assert sum(refined.sizes.values()) <= capacity
                assert all(claim.low <= refined.sizes[claim.key] <= claim.high for claim in claims)
                gaps.append((greedy.misses - refined.misses) / refined.misses)
        # The exchanges leave what needs three pods to change at once to the solver. The one percent of docs/design.md §4.8
        # holds on the mean; single nodes on which hardly anything need be missed may be further off.
        assert max(gaps) > 0.0, "nothing here needed the solver"
        assert sum(gaps) / len(gaps) < 0.01
        assert max(gaps) < 0.1

    run(body())


def test_the_solver_is_not_started_for_what_is_proven() -> None:
    async def body() -> None:
        claims = [Claim("a", 1.0, ((0.0, 5.0), (1.0, 0.0)), 0.5, 0.1, 2.0)]
        greedy = Problem(claims, 0.5, DivideRules()).solve()
        async with refiner() as solver:
            assert await solver.refine(claims, 0.5, DivideRules(), greedy) is greedy
            assert solver.pid is None

    run(body())


def test_the_solver_is_not_loaded_into_the_controller() -> None:
    """Asked of a fresh interpreter, in which nothing else can have imported it."""
    script = """
import asyncio, sys
from tests.controller.sizing.test_cpsat import PATIENT, RULES, unproven
from knative_sponge.controller.sizing.cpsat import Refiner

async def main():
    solver = Refiner(PATIENT)
    claims, capacity, greedy = unproven()
    assert (await solver.refine(claims, capacity, RULES, greedy)).exact
    assert solver.pid is not None
    await solver.close()

asyncio.run(main())
assert not {"ortools", "numpy", "pandas"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_nobody_waits_for_the_start() -> None:
    async def body() -> None:
        claims, capacity, greedy = unproven()
        # No interpreter starts and imports the solver in 20 ms.
        async with refiner(RefineRules(deadline_s=0.02, limit_s=0.01)) as solver:
            assert await solver.refine(claims, capacity, RULES, greedy) is greedy
            await until(lambda: solver.pid)
            refined = await solver.refine(claims, capacity, RULES, greedy)
            assert refined.misses <= greedy.misses

    run(body())


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("", id="it ends"),
        pytest.param("time.sleep(60)", id="it says nothing"),
        pytest.param("print('what?', flush=True)", id="it talks nonsense"),
        pytest.param("print('[]', flush=True)", id="its line is no object"),
        pytest.param('print(\'{"id": 7, "sizes": null}\', flush=True)', id="it answers another question"),
        pytest.param('print(\'{"id": 1, "sizes": [9000], "bound": 0}\', flush=True)', id="it spends too much"),
        pytest.param('print(\'{"id": 1, "sizes": 5, "bound": 0}\', flush=True)', id="its sizes are none"),
        pytest.param("print('x' * 3000000, flush=True)", id="its line never ends"),
    ],
)
def test_the_greedy_division_stands_when_the_solver_fails(script: str) -> None:
    async def body() -> None:
        claims, capacity, greedy = unproven()
        async with refiner(scripted(script, deadline_s=2.0)) as solver:
            assert await solver.refine(claims, capacity, RULES, greedy) is greedy
            assert solver.pid is None, "it is not asked again"

    run(body())


def test_a_solver_that_died_is_started_anew() -> None:
    async def body() -> None:
        claims, capacity, greedy = unproven()
        async with refiner() as solver:
            await solver.refine(claims, capacity, RULES, greedy)
            first = solver.pid
            assert first is not None
            os.kill(first, 9)
            await solver.refine(claims, capacity, RULES, greedy)
            assert (await solver.refine(claims, capacity, RULES, greedy)).exact
            assert solver.pid not in (None, first)

    run(body())


def test_a_solver_that_cannot_start_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async def body() -> None:
        claims, capacity, greedy = unproven()
        starts = tmp_path / "starts"
        script = f"open({str(starts)!r}, 'a').write('.')"
        async with refiner(RefineRules(deadline_s=15.0, command=(sys.executable, "-S", "-c", script))) as solver:
            for _ in range(3):
                assert await solver.refine(claims, capacity, RULES, greedy) is greedy
            assert solver.pid is None
        assert starts.read_text() == "."

    run(body())


def test_nodes_take_turns() -> None:
    async def body() -> None:
        problems = [unproven(seed) for seed in (0, 100, 200)]
        async with refiner() as solver:
            asked = [solver.refine(claims, capacity, RULES, greedy) for claims, capacity, greedy in problems]
            for (_, _, greedy), refined in zip(problems, await asyncio.gather(*asked), strict=True):
                assert refined.exact
                assert refined.misses <= greedy.misses

    run(body())


def test_closing_ends_the_process_and_for_good() -> None:
    async def body() -> None:
        claims, capacity, greedy = unproven()
        solver = Refiner(PATIENT)
        await solver.refine(claims, capacity, RULES, greedy)
        pid = solver.pid
        assert pid is not None
        await solver.close()
        assert gone(pid)
        assert await solver.refine(claims, capacity, RULES, greedy) is greedy
        assert solver.pid is None

    run(body())


def test_closing_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    async def body() -> None:
        claims, capacity, greedy = unproven()
        note = tmp_path / "pid"
        script = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
        solver = Refiner(RefineRules(limit_s=0.1, deadline_s=0.1, command=(sys.executable, "-S", "-c", script)))
        assert await solver.refine(claims, capacity, RULES, greedy) is greedy
        await until(lambda: note.exists() and note.read_text())
        await solver.close()
        assert gone(int(note.read_text()))

    run(body())


def test_the_process_ends_with_its_input() -> None:
    command = [sys.executable, "-m", "knative_sponge.controller.sizing.cpsat"]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == '{"ready": true}\n'
    assert not done.stderr


def test_a_solution_keeps_its_time_limit_and_counts_cannot_overflow() -> None:
    """Also on the largest node and with rates that nobody has."""
    rng = random.Random(1)
    pods: list[dict[str, Any]] = []
    for _ in range(250):
        xs = sorted(rng.sample(range(10, 256_000), 10))
        ys = sorted((rng.uniform(0.0, 1e9) for _ in xs), reverse=True)
        pods.append({"xs": xs, "ys": ys, "size": xs[0]})
    budget = sum(pod["xs"][0] for pod in pods) + 500_000
    answer = solve({"id": 3, "budget": budget, "limit_s": 0.5, "pods": pods})
    assert answer["id"] == 3
    assert answer["sizes"] is None or sum(answer["sizes"]) <= budget


def test_a_bound_is_never_above_what_can_be_reached() -> None:
    for seed in range(10):
        claims, capacity = node(seed, count=4)
        problem = Problem(claims, capacity, RULES)
        sizes = problem.greedy().sizes
        pods = [{"xs": loss.xs, "ys": loss.ys, "size": size} for loss, size in zip(problem.losses, sizes, strict=True)]
        answer = solve({"id": 1, "budget": problem.capacity, "limit_s": 0.001 * seed, "pods": pods})
        reached = sum(loss.at(size) for loss, size in zip(problem.losses, sizes, strict=True))
        assert answer["bound"] <= reached + 1e-6


@pytest.mark.parametrize("change", [{"limit_s": 0.0}, {"deadline_s": 0.1}, {"start_s": 0.0}, {"command": ()}])
def test_impossible_rules_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        RefineRules(**change)  # type: ignore[arg-type]
