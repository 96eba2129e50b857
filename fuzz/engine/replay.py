"""A reproducer once more, without atheris: `python -m fuzz.engine.replay <target> <file> …`. Every call is measured exactly."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from fuzz.engine.cost import Excess, Meter
from fuzz.engine.recipe import expand
from fuzz.engine.session import Target


def replay(target: Target, recipe: bytes) -> Meter:
    """Give the target the input that the recipe stands for. Returns what it cost; raises what the target raises."""
    meter = Meter(target.BOUND, exact=True)
    target.check(expand(recipe), meter)
    return meter


def main(arguments: list[str]) -> int:
    """Replay the files. Returns the exit status."""
    name, *files = arguments
    target: Target = importlib.import_module(f"fuzz.{name}")
    failed = 0
    for file in map(Path, files):
        try:
            meter = replay(target, file.read_bytes())
        except (Exception, Excess):  # shown, it is what was asked for
            traceback.print_exc()
            failed += 1
        else:
            print(f"{file}: fine, {meter.cpu_s:.3f} s of CPU, {meter.bytes:,} bytes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
