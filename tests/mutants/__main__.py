"""`python -m tests.mutants [PLACE ...]`: see which mutants the tests of their rooms kill. Changes no file."""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from tests.mutants import left
from tests.mutants.forks import Task, forked
from tests.mutants.measure import Reach, measure, read
from tests.mutants.mutation import Mutation, compiles, mutations
from tests.mutants.rooms import PRODUCT, ROOT, Room, rooms
from tests.mutants.trial import Verdict, tried

# What the tests import and takes long; each fork finds it imported.
_WARM = ("hypothesis.stateful", "msgspec", "numpy", "aiohttp", "cryptography.x509")
_MEASURE_S = 3600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 when a mutant that is not left on purpose survived, else 0."""
    options = _options(argv)
    wanted = _rooms(options.place, options.tests)
    sources = {file: (ROOT / file).read_text() for room in wanted for file in room.modules}
    chosen = sample(sources, options.place, options.count, options.seed)
    known = left.read()
    trial = [mutation for mutation in chosen if not any(entry.names(mutation) for entry in known)]
    used = [room for room in wanted if any(mutation.file in room.modules for mutation in trial)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # leaves no fork behind
    started = time.monotonic()
    for name in _WARM:
        importlib.import_module(name)
    reach = _measured(used, options.jobs)
    print(f"{len(trial)} mutants, tests measured after {time.monotonic() - started:.0f} s", flush=True)
    own = {mutation: room.name for room in used for mutation in trial if mutation.file in room.modules}
    found: dict[Mutation, Verdict] = {}
    for mutation, result in tried({m: reach[own[m]].limits_s(m) for m in trial}, sources, ROOT, options.jobs):
        found[mutation] = result
        if options.verbose or result is Verdict.SURVIVED:
            count = len(reach[own[mutation]].limits_s(mutation))
            print(f"[{len(found)}] {result}: {describe(mutation)}  ({count} tests execute it)", flush=True)
    alive = [mutation for mutation, result in found.items() if result is Verdict.SURVIVED]
    elsewhere = {m: _elsewhere(m, own[m], reach) for m in alive}
    by_others = {m for m, result in tried(elsewhere, sources, ROOT, options.jobs) if result is not Verdict.SURVIVED}
    for mutation in sorted(by_others):
        print(f"killed by another room's tests only: {describe(mutation)}")

    for room in used:
        results = Counter(found[mutation] for mutation in trial if own[mutation] == room.name)
        print(f"{room.name:24} {_killed(results)} of {results.total()} killed")
    results = Counter(found.values())
    print(
        f"killed {_killed(results)} of {len(chosen)} ({results[Verdict.TIMED_OUT]} of them timed out); "
        f"{len(chosen) - len(trial)} left on purpose; {results[Verdict.SURVIVED]} survived, "
        f"{len(by_others)} of them killed by another room's tests; {time.monotonic() - started:.0f} s"
    )
    return 1 if len(alive) > len(by_others) else 0


def sample(sources: Mapping[str, str], places: Sequence[str], count: int, seed: int) -> list[Mutation]:
    """At most `count` mutations that compile, at the places named; the same for the same sources and seed."""
    found = [m for file, source in sorted(sources.items()) for m in mutations(source, file) if _at(m, places)]
    random.Random(seed).shuffle(found)
    return list(islice((mutation for mutation in found if compiles(mutation, sources[mutation.file])), count))


def describe(mutation: Mutation) -> str:
    """Where it is, the line and what becomes of it."""
    return f"{mutation.file}:{mutation.line}: {mutation.text}  →  {mutation.mutant}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "place", nargs="*", metavar="PLACE",
        help="core, core/batching, core/batching/plan.py or core/batching/plan.py:94; all rooms when there is none",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=400, help="how many mutants at most (default: 400)")
    parser.add_argument("--seed", type=int, default=1, help="which sample (default: 1)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time (default: all cores)"
    )
    parser.add_argument("--tests", nargs="+", default=[], help="test files to try in place of the room's")
    parser.add_argument("--verbose", action="store_true", help="print the killed ones too")
    return parser.parse_args(argv)


def _rooms(places: Sequence[str], tests: Sequence[str]) -> list[Room]:
    files = {
        room: [file for file in room.modules if not places or any(_in(file, p) for p in places)] for room in rooms()
    }
    found = [Room(room.name, tuple(kept), tuple(tests) or room.tests) for room, kept in files.items() if kept]
    if not found:
        sys.exit(f"no module that does no I/O is called {' or '.join(places)}")
    return found


def _in(file: str, place: str) -> bool:
    """Whether a file is the one named, or in the folder named."""
    name, wanted = file.removeprefix(f"{PRODUCT}/"), place.partition(":")[0]
    return name == wanted or name.startswith(wanted.rstrip("/") + "/")


def _at(mutation: Mutation, places: Sequence[str]) -> bool:
    return not places or any(
        _in(mutation.file, place) and place.partition(":")[2] in {"", str(mutation.line)} for place in places
    )


def _measured(used: Sequence[Room], jobs: int) -> dict[str, Reach]:
    """What each room's tests reach. Ends the program when they fail without a mutant."""
    with tempfile.TemporaryDirectory() as folder:
        results = {room.name: Path(folder) / f"{room.name.replace('/', '-')}.json" for room in used}
        tasks = [Task(r.name, partial(measure, r.tests, PRODUCT, ROOT, results[r.name]), _MEASURE_S) for r in used]
        for name, exit_code in forked(tasks, jobs):
            if exit_code != 0:
                log = results[name].with_suffix(".log")
                sys.exit(
                    f"{log.read_text() if log.exists() else ''}\nthe tests of {name} fail without a mutant: {exit_code}"
                )
        return {name: read(path) for name, path in results.items()}


def _elsewhere(mutation: Mutation, room: str, reach: Mapping[str, Reach]) -> dict[str, float]:
    """Tests of the same package's other rooms that execute the mutation."""
    package = room.partition("/")[0]
    limits_s: dict[str, float] = {}
    for name, found in reach.items():
        if name != room and name.partition("/")[0] == package and not mutation.at_import:
            limits_s |= found.limits_s(mutation)
    return limits_s


def _killed(results: Counter[Verdict]) -> int:
    return results[Verdict.KILLED] + results[Verdict.TIMED_OUT]


if __name__ == "__main__":
    sys.exit(main())
