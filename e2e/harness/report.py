"""`out/e2e/report.json`: every test's name, outcome, seconds and measurements, and how long each phase of a run took.

    {"runs": {"cold": RUN, "warm": RUN}}
    RUN = {"started": ISO time, "total_s": …, "phases": {"build": s, "up": s, …}, "passed": n, "failed": n, "skipped": n,
           "tests": [{"name": …, "outcome": "passed"|"failed"|"skipped", "seconds": s, "measured": {name: value}}]}

A run is cold when something had to be built. Each kind of run replaces its own earlier entry only.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Entry:
    """One test."""

    name: str
    outcome: str = "passed"
    seconds: float = 0.0
    measured: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """One run, filled while it goes."""

    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    cold: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    tests: dict[str, Entry] = field(default_factory=dict)
    _started_s: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        print(f"==> {name}", flush=True)
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = round(time.monotonic() - started_s, 1)

    def entry(self, name: str) -> Entry:
        """The entry of a test."""
        return self.tests.setdefault(name, Entry(name))

    def write(self, file: Path) -> None:
        """Put this run beside the last one of the other kind."""
        runs: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError):
            runs = json.loads(file.read_text())["runs"]
        outcomes = [entry.outcome for entry in self.tests.values()]
        runs["cold" if self.cold else "warm"] = {
            "started": self.started,
            "total_s": round(time.monotonic() - self._started_s, 1),
            "phases": self.phases,
            **{outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")},
            "tests": [asdict(entry) for entry in self.tests.values()],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
