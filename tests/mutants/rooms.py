"""Which tests answer for which module: those of the room beside it. Only modules that do no I/O are listed.

Where a room has modules with I/O besides, only tests that are named after the others count: those of whole loops and real
sockets take long, wait for a clock, and say little about which token was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = "knative_sponge"
WHOLE = ("core", "codec")
"""Packages of which every module is pure."""
CONTROLLER = (
    "admission/admission_review", "admission/pod", "admission/service",
    "cluster/capacity", "cluster/node", "cluster/pod", "cluster/pod_fields", "cluster/pod_request",
    "profiles/profile",
    "reporting/rows", "reporting/why",
    "revisions/decision", "revisions/idle", "revisions/scale", "revisions/serverless_service", "revisions/status",
    "sizing/actuation", "sizing/claim_holds", "sizing/claims", "sizing/node_state", "sizing/pod_state", "sizing/quota_refusals",
    "sizing/round_robin",
)  # fmt: skip
"""The controller's modules without I/O."""


@dataclass(frozen=True, slots=True)
class Room:
    """name: as in `core/batching`. modules, tests: files, relative to the root."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


def rooms(root: Path = ROOT) -> list[Room]:
    """All rooms that have mutants, by name."""
    product = root / PRODUCT
    modules = [path for package in WHOLE for path in (product / package).rglob("*.py")]
    modules += [product / "controller" / f"{name}.py" for name in CONTROLLER]
    by_name: dict[str, list[str]] = {}
    for path in sorted(modules):
        by_name.setdefault(str(path.parent.relative_to(product)), []).append(str(path.relative_to(root)))
    return [Room(name, tuple(paths), _tests(root, name, paths)) for name, paths in sorted(by_name.items())]


def _tests(root: Path, name: str, modules: Sequence[str]) -> tuple[str, ...]:
    whole = name.partition("/")[0] in WHOLE
    patterns = ["test_*.py"] if whole else [f"test_{Path(module).stem}*.py" for module in modules]
    found = {path for pattern in patterns for path in (root / "tests" / name).glob(pattern)}
    return tuple(str(path.relative_to(root)) for path in sorted(found))
