"""The page for trouble knows every event and every condition that the controller writes."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from knative_sponge.controller.revisions.status import StatusFacts, conditions
from knative_sponge.core.resizing.events import ReportKind

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "troubleshoot.md").read_text()
MODULES = sorted((ROOT / "knative_sponge" / "controller").rglob("*.py"))


def written_reasons() -> Iterator[str]:
    """The fourth argument of every `Event(…)` in the controller, where it is written out."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event":
                named = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
                for value in (*node.args[3:4], *named):
                    if isinstance(value, ast.Constant):
                        yield str(value.value)


def test_all_modules_of_the_controller_are_read() -> None:
    assert len(MODULES) > 50


def test_every_event_is_explained() -> None:
    rows = set(re.findall(r"^\| `([A-Za-z]+)` \|", TEXT, re.MULTILINE))
    reasons = {*written_reasons(), *get_args(ReportKind)}
    assert "StockProxy" in reasons
    assert reasons <= rows


def test_every_condition_with_a_reason_is_explained() -> None:
    rows = set(re.findall(r"^\| `([A-Za-z]+)` (True|False|Unknown) \| `([A-Za-z]+)` \|", TEXT, re.MULTILINE))
    possible = set()
    for goal, ready, *flags in itertools.product((0, 1), (0, 1), *[(False, True)] * 5):
        serves, begun, foreign, unseen, given_up = map(bool, flags)
        facts = StatusFacts(
            generation=1,
            goal=goal,
            threshold=1,
            ready=ready,
            service="s",
            private="p",
            service_ready=serves,
            initialized=begun,
            not_owned=foreign,
            activators_unseen=unseen,
            given_up=given_up,
        )
        possible |= {
            (entry.type, entry.status, entry.reason)
            for entry in conditions(facts, "a")
            if entry.reason and entry.type != "Ready"
        }
    # While it starts, a condition is Unknown where it will be False later: one row tells of both.
    assert {(kind, reason) for kind, _, reason in possible} == {(kind, reason) for kind, _, reason in rows}
    assert rows <= possible
