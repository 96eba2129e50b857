"""CP-SAT's answer to a division that the greedy rule could not prove best, from a process of its own.

OR-Tools takes a second to import, tens of megabytes, and a core while it solves. So nothing of it is loaded into the
controller: `Refiner` starts `python -m knative_sponge.controller.sizing.cpsat` on first need and speaks JSON lines with it.
The refiner never waits beyond its deadline and never raises because of the solver. Without an answer the greedy division
stands.

    request: {"id":1,"budget":4000,"limit_s":0.2,"pods":[{"xs":[100,400],"ys":[3.5,0.0],"size":250}]}   millicores, misses
    answer:  {"id":1,"sizes":[400],"bound":0.0}, or "sizes":null; the line {"ready":true} comes first
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from knative_sponge.core.allocation.divide import Claim, DivideRules, Division, Problem
from knative_sponge.core.allocation.knapsack import Spending

logger = logging.getLogger(__name__)

_LINE_BYTES: Final = 1 << 20
CLOSING_S: Final = 0.5
"""Longest wait for the end of a process that was killed. It ends sooner unless its machine is in trouble. The leader's work
must end within a third of its lease, which lasts three seconds at least."""
_LARGEST: Final = 1 << 50
"""Bound of the objective. Doubles hold it exactly, and the sums that CP-SAT checks stay below its bound of 2⁶²."""


@dataclass(frozen=True, slots=True)
class RefineRules:
    """Times in seconds.

    limit_s: what the solver may take. deadline_s: longest wait for it, queueing and its start included. start_s: what its start
    may take. again_s: pause before another start after one that failed. command: is started instead of this module.
    """

    limit_s: float = 0.2
    deadline_s: float = 0.4
    start_s: float = 30.0
    again_s: float = 30.0
    command: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.limit_s <= self.deadline_s or self.start_s <= 0 or self.again_s < 0 or self.command == ():
            raise ValueError(f"impossible rules: {self}")


class Refiner:
    """One solver process for all nodes, which take turns. Use within one event loop; `close` ends the process."""

    def __init__(self, rules: RefineRules | None = None) -> None:
        self._rules = rules or RefineRules()
        self._turn = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False
        self._killed: list[asyncio.subprocess.Process] = []
        self._not_before = -math.inf
        self._sent = 0

    @property
    def pid(self) -> int | None:
        """The process, when it is ready to solve."""
        return self._process.pid if self._ready and self._process is not None else None

    async def refine(self, claims: Sequence[Claim], capacity: float, rules: DivideRules, greedy: Division) -> Division:
        """`greedy`, which is `Problem.solve` of the same claims, or what misses less by more than `rules.tolerance`.

        Its `exact` then also says what the solver has proven. Takes `deadline_s` at most.
        """
        if greedy.exact:
            return greedy
        problem = Problem(claims, capacity, rules)
        try:
            queued = self._turn.locked()
            async with asyncio.timeout(self._rules.deadline_s) as bound, self._turn:
                left_s = (bound.when() or math.inf) - asyncio.get_running_loop().time()
                if queued and left_s < self._rules.limit_s:
                    return greedy  # an answer that nobody waits for costs the process, and all nodes its next start
                spending = await self._ask(problem, greedy)
        except TimeoutError:
            return greedy
        except (OSError, ValueError, TypeError, KeyError) as error:  # the process has ended, or wrote what is no answer
            logger.warning("the solver's process failed: %s", error or type(error).__name__)
            self._kill()
            return greedy
        if spending is None:
            return greedy
        refined = problem.finish(spending)
        if refined.misses < greedy.misses * (1 - rules.tolerance):
            return refined
        return replace(greedy, exact=refined.exact)

    async def close(self) -> None:
        """End the process, if there is one, and wait CLOSING_S at most for its end. It is not started again."""
        self._not_before = math.inf
        try:
            async with asyncio.timeout(CLOSING_S):
                if self._starting is not None:
                    self._starting.cancel()
                    await asyncio.wait([self._starting])
                self._kill()
                for process in self._killed:
                    await process.wait()
        except TimeoutError:
            logger.warning("the solver's process was killed and has not ended")

    async def _ask(self, problem: Problem, greedy: Division) -> Spending | None:
        process = self._process if self._ready else await self._start()
        if process is None:
            return None
        self._sent += 1
        pods = [
            {"xs": loss.xs, "ys": loss.ys, "size": round(greedy.sizes[claim.key] * 1000)}
            for claim, loss in zip(problem.claims, problem.losses, strict=True)
        ]
        request = {"id": self._sent, "budget": problem.capacity, "limit_s": self._rules.limit_s, "pods": pods}
        try:
            await _write(process, request)
            answer = await _read(process)
        except asyncio.CancelledError:  # the answer is late, and must not be taken for that to the next question
            self._kill()
            raise
        return _spending(answer, self._sent, problem)

    async def _start(self) -> asyncio.subprocess.Process | None:
        """The process once it is ready; None where it cannot be started. The start goes on when the caller no longer waits."""
        if self._starting is None:
            if asyncio.get_running_loop().time() < self._not_before:
                return None
            self._starting = asyncio.create_task(self._launch(), name="cpsat")
        await asyncio.wait([self._starting])
        return self._process if self._ready else None

    async def _launch(self) -> None:
        try:
            async with asyncio.timeout(self._rules.start_s):
                self._process = await asyncio.create_subprocess_exec(
                    *(self._rules.command or _own_command()),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=_LINE_BYTES,
                    start_new_session=True,  # a terminal's interrupt is the controller's; this process ends with its input
                )
                self._ready = (await _read(self._process)).get("ready") is True
        except (OSError, ValueError, TimeoutError) as error:
            logger.warning("cores are divided without a solver: %s", error or type(error).__name__)
        finally:
            self._starting = None
            if not self._ready:
                self._kill()
                self._not_before = max(self._not_before, asyncio.get_running_loop().time() + self._rules.again_s)

    def _kill(self) -> None:
        self._killed = [process for process in self._killed if process.returncode is None]
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            self._killed.append(self._process)
        self._process, self._ready = None, False


def _own_command() -> list[str]:
    """This module as a program, with as much of Python's site as this process has."""
    flags = sys.flags
    options = [("-S", flags.no_site), ("-P", flags.safe_path), ("-s", flags.no_user_site)]
    return [sys.executable, *(option for option, on in options if on), "-m", "knative_sponge.controller.sizing.cpsat"]


async def _write(process: asyncio.subprocess.Process, request: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    await process.stdin.drain()


async def _read(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line. Raises ValueError for one that is no JSON object, OSError when the process has ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise BrokenPipeError("it has ended")
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("it wrote no JSON object")
    return answer


def _spending(answer: dict[str, Any], wanted: int, problem: Problem) -> Spending | None:
    """What the solver answered, checked. Raises ValueError when it cannot be an answer to the question."""
    sizes = answer.get("sizes")
    if answer.get("id") != wanted:
        raise ValueError("an answer to another question")
    if sizes is None:
        return None
    fits = len(sizes) == len(problem.losses) and sum(sizes) <= problem.capacity
    if not fits or not all(loss.xs[0] <= x <= loss.xs[-1] for loss, x in zip(problem.losses, sizes, strict=True)):
        raise ValueError("sizes that cannot be")
    return Spending([int(x) for x in sizes], float(answer["bound"]))


def solve(request: dict[str, Any]) -> dict[str, Any]:
    """Least misses, then least millicores, exactly: each pod lies on one segment of its curve. Needs OR-Tools.

    The two goals are one integer: misses in steps of all that could be saved, times more than all millicores. A literal
    chooses a segment, and an integer says how many millicores of it are filled. That is the tightest model there is: its
    relaxation is the hull that the greedy rule works on. Present sizes do not count here: `Problem.finish` looks at them in
    this answer as in the greedy one.
    """
    from ortools.sat.python import cp_model  # noqa: PLC0415 - only in the process of its own

    begun = time.perf_counter()
    budget, pods = request["budget"], request["pods"]
    spread = sum(pod["ys"][0] - pod["ys"][-1] for pod in pods)
    scale = _LARGEST // (budget + 1) / spread if spread > 0 else 0.0  # steps per weighted row per second
    model = cp_model.CpModel()
    sizes: list[Any] = []
    saved: list[Any] = []
    for pod in pods:
        xs, ys = pod["xs"], pod["ys"]
        parts: list[Any] = []
        chosen: list[Any] = []
        hint = min(max(pod["size"], xs[0]), xs[-1])
        for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):
            here = x0 <= hint < x1 or hint == x1 == xs[-1]
            literal, more = model.new_bool_var(""), model.new_int_var(0, x1 - x0, "")
            model.add_hint(literal, here)
            model.add_hint(more, hint - x0 if here else 0)
            model.add(more <= (x1 - x0) * literal)
            chosen.append(literal)
            parts.append(x0 * literal + more)
            saved.append(int((ys[0] - y0) * scale) * literal + int((y0 - y1) * scale / (x1 - x0)) * more)
        if chosen:
            model.add_exactly_one(chosen)
        sizes.append(sum(parts) if parts else xs[0])
    model.add(sum(sizes) <= budget)
    model.maximize((budget + 1) * sum(saved) - sum(sizes))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = max(0.01, request["limit_s"] - (time.perf_counter() - begun))
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return {"id": request["id"], "sizes": None, "bound": 0.0}
    worst = sum(pod["ys"][0] for pod in pods)
    most_saved = (solver.best_objective_bound + budget) / (budget + 1) / scale if scale else 0.0
    bound = max(worst - spread, worst - most_saved)
    return {"id": request["id"], "sizes": [int(solver.value(size)) for size in sizes], "bound": bound}


def serve(lines: Iterable[str]) -> None:
    """Answer each line on the standard output, until the lines end because the controller has ended."""
    os.nice(5)  # the controller's loop comes first
    from ortools.sat.python import cp_model  # noqa: F401, PLC0415 - imported before an answer is waited for

    print(json.dumps({"ready": True}), flush=True)
    for line in lines:
        print(json.dumps(solve(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(sys.stdin)
