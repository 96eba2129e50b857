"""All targets one after the other: `python -m fuzz --minutes 6`, divided among them. Fails when one finds something."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz.engine.session import Summary, default_out, environment

TARGETS: Final = ("head", "chunked_body", "inference_json", "binary_tensors", "cloud_events", "annotations")
_GRACE_S: Final = 400
"""Beyond its time a session may take this long: it ends itself, and a run that hangs is ended by libFuzzer."""
_TABLE: Final = "{:<15} {:>10} {:>6}  {:>20}  {:>22}  {:>8}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one session went. edges: branches of the product that were reached. ended: of itself, neither killed nor crashed."""

    summary: Summary
    edges: int
    ended: bool

    @property
    def good(self) -> bool:
        """Nothing was found."""
        return self.ended and not self.summary.findings


def run(target: str, seconds: float, out: Path, seed: int) -> Outcome:
    """One session in a process of its own; its log lies beside what it found."""
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "fuzz.engine.session", target, "--out", str(out)]
    command += ["--seconds", f"{seconds:.0f}", "--seed", str(seed)]
    with (folder / "log").open("w") as log:
        try:
            process = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
                timeout=seconds + _GRACE_S,
                check=False,
            )
            status, told = process.returncode, process.stdout
        except subprocess.TimeoutExpired:
            status, told = -1, ""
    print("".join(line + "\n" for line in told.splitlines() if line.startswith("FOUND")), end="", flush=True)
    covered = re.findall(r"\bcov: (\d+)", (folder / "log").read_text(errors="replace"))
    try:
        summary = Summary(**json.loads((folder / "summary.json").read_text()))
    except (OSError, ValueError):
        summary = Summary()
    return Outcome(summary, int(covered[-1]) if covered else 0, status in (0, 1) and summary.executions > 0)


def main() -> int:
    """Run them all, print a line for each. Returns the exit status."""
    options = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    options.add_argument("--minutes", type=float, default=6.0, help="for all of them together")
    options.add_argument(
        "--out", type=Path, default=default_out(), help="what is learned and found, one folder a target"
    )
    options.add_argument("--seed", type=int, default=0, help="0 takes another each time")
    options.add_argument("targets", nargs="*", choices=[[], *TARGETS], default=[], metavar="target")
    chosen = options.parse_args()
    targets = chosen.targets or TARGETS
    seconds = max(1.0, chosen.minutes * 60 / len(targets))
    print(
        _TABLE.format("target", "inputs", "edges", "slowest (CPU s, KiB)", "largest (MiB, of KiB)", "findings"),
        flush=True,
    )
    good = True
    for target in targets:
        outcome = run(target, seconds, chosen.out, chosen.seed)
        summary = outcome.summary
        print(
            _TABLE.format(
                target,
                f"{summary.executions:,}",
                outcome.edges,
                f"{summary.slowest_s:.3f} {summary.slowest_size / 1024:9.1f}",
                f"{summary.largest_bytes / 2**20:.1f} {summary.largest_size / 1024:9.1f}",
                len(summary.findings) if outcome.ended else "crashed",
            ),
            flush=True,
        )
        good = good and outcome.good
        if not outcome.good:
            print(f"    {chosen.out / target / ('findings' if outcome.ended else 'log')}")
            for name in summary.findings:
                path = chosen.out / target / "findings" / name
                print(f"    {path.read_bytes()!r:.2000}")
                print(f"    again: {shlex.join([sys.executable, '-m', 'fuzz.engine.replay', target, str(path)])}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
