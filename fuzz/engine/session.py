"""One target under atheris, for some seconds: `python -m fuzz.engine.session <target> …`. Findings end nothing, and are kept.

Each is kept once, as the smallest input that shows it, under the folder that `--out` names; the exit status says whether
there was one. What the fuzzer learned stays in the same folder, and the next run begins with it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Protocol

from fuzz.engine.cost import Bound, Meter, TooLarge, TooSlow
from fuzz.engine.mutation import Mutator
from fuzz.engine.recipe import expand

ROOT: Final = Path(__file__).parent.parent
PRODUCT: Final = "knative_sponge"
CORPUS: Final = ROOT / "corpus"
_LONGEST_RECIPE: Final = 8192
_SAMPLE: Final = 32
"""Of so many inputs one has all its memory measured exactly: what is taken of memory that was free does not show."""
_HANG_S: Final = 300
"""Seconds after which libFuzzer ends a run that no signal of ours could reach."""


class Target(Protocol):
    """A module of this package that says how one kind of input is judged."""

    BOUND: Bound
    TOKENS: Sequence[bytes]
    """Pieces that mean something to what reads the input."""

    def check(self, data: bytes, meter: Meter) -> None:
        """Give the input to the code under test, through the meter. Raises what is wrong: errors, Excess, AssertionError."""
        ...


@dataclass
class Summary:
    """What one run did, for the table of all."""

    executions: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    slowest_size: int = 0
    largest_bytes: int = 0
    largest_size: int = 0
    findings: dict[str, str] = field(default_factory=dict)
    """By where and what: the message."""


def start(module: str) -> NoReturn:
    """Become a session of the target of this name. A new process: atheris counts coverage in what is imported under it."""
    command = [sys.executable, "-m", "fuzz.engine.session", module, *sys.argv[1:]]
    os.execve(sys.executable, command, environment())


def environment() -> dict[str, str]:
    """That of a session: glibc gives large blocks back at once, so that the resident set shows who takes them again."""
    return {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def default_out() -> Path:
    """Outside the checkout, like everything that is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "knative-sponge" / "fuzz"


class Session:
    """Judges one input after the other until its time is over."""

    def __init__(self, target: Target, out: Path, seconds: float) -> None:
        self.summary = Summary()
        self._target = target
        self._out = out
        self._started_s = self._told_s = time.monotonic()
        self._seconds = seconds

    def one(self, recipe: bytes) -> None:
        """Judge one input. Does not return once the time is over: the process ends."""
        data = expand(recipe)
        meter = Meter(self._target.BOUND, exact=not self.summary.executions % _SAMPLE)
        try:
            self._target.check(data, meter)
        except (TooSlow, TooLarge, Exception) as error:  # whatever it is, it is a finding
            self._found(recipe, data, error)
        summary = self.summary
        summary.executions += 1
        if meter.cpu_s > summary.slowest_s:
            summary.slowest_s, summary.slowest_size = meter.cpu_s, len(data)
            self._keep("slowest", recipe)
        if meter.bytes > summary.largest_bytes:
            summary.largest_bytes, summary.largest_size = meter.bytes, len(data)
            self._keep("largest", recipe)
        now_s = time.monotonic()
        summary.seconds = now_s - self._started_s
        if summary.seconds >= self._seconds or now_s > self._told_s + 1.0:
            self._told_s = now_s
            (self._out / "summary.json").write_text(json.dumps(asdict(summary)))
        if summary.seconds >= self._seconds:
            sys.stdout.flush()
            os._exit(1 if summary.findings else 0)

    def _found(self, recipe: bytes, data: bytes, error: BaseException) -> None:
        where = place(error)
        name = f"{type(error).__name__}-{where}"
        reproducer = self._out / "findings" / name
        if name in self.summary.findings and reproducer.stat().st_size <= len(recipe):
            return
        if name not in self.summary.findings:
            after_s = time.monotonic() - self._started_s
            told = f"{type(error).__name__} in {where}: {str(error)[:200]}"
            print(f"FOUND after {after_s:.0f} s, {self.summary.executions:,} inputs: {told}", flush=True)
            self.summary.findings[name] = told
        self._keep(f"findings/{name}", recipe)
        story = "".join(traceback.format_exception(error))
        (self._out / "findings" / f"{name}.txt").write_text(f"{len(data)} bytes\n{story[-20000:]}")

    def _keep(self, name: str, recipe: bytes) -> None:
        (self._out / name).write_bytes(recipe)


def place(error: BaseException) -> str:
    """The function of the product that an error comes from, or else the line of the target that was not content."""
    frames = [
        (frame.f_globals.get("__name__", ""), frame.f_code.co_qualname, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    for module, name, _ in reversed(frames):
        if module.startswith(PRODUCT + "."):
            return re.sub(r"[^\w.]", "", f"{module.removeprefix(PRODUCT + '.')}.{name}")
    module, _, line = next((frame for frame in reversed(frames) if not frame[0].startswith("fuzz.engine")), frames[-1])
    return f"{module}.{line}"


def main() -> None:
    """Run a session; see the module."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("target")
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--out", type=Path, default=default_out())
    options.add_argument("--seed", type=int, default=0, help="0 takes another each time")
    chosen = options.parse_args()

    import atheris  # noqa: PLC0415 (nothing else here needs it)

    with atheris.instrument_imports(include=[PRODUCT]):
        target: Target = importlib.import_module(f"fuzz.{chosen.target}")
    out: Path = chosen.out / chosen.target
    for folder in ("learned", "findings", "hangs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    session = Session(target, out, chosen.seconds)
    arguments = [
        chosen.target,
        f"-max_len={_LONGEST_RECIPE}",
        f"-timeout={_HANG_S}",
        "-rss_limit_mb=4096",
        "-reduce_inputs=0",
        f"-artifact_prefix={out / 'hangs'}/",
        f"-seed={chosen.seed}",
        str(out / "learned"),
        str(CORPUS / chosen.target),
    ]
    # Looked up at each call: atheris puts another function there when it starts.
    seeds = [seed.read_bytes() for seed in sorted((CORPUS / chosen.target).iterdir())]
    mutator = Mutator(lambda data, most: atheris.Mutate(data, most), target.TOKENS, seeds)  # noqa: PLW0108
    atheris.Setup(arguments, session.one, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
