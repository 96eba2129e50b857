"""Rows of the overview: numbers that cannot be, what an older leader left out, misses on a curve."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from knative_sponge.controller.reporting.rows import BoardError, NodeRow, Overview, PodRow
from tests.controller.reporting.board_kit import NODE, POD, REVISION, SHORT

Row = TypeVar("Row", PodRow, NodeRow)
OVERVIEW = Overview(0.5, (REVISION,), (NODE, replace(SHORT, name="n2")))


def changed(row: Row, change: dict[str, Any]) -> Row:
    return replace(row, **change)


@pytest.mark.parametrize(
    ("cores", "misses"), [(0.0, 6.0), (0.4, 6.0), (0.5, 5.0), (0.8, 2.0), (1.2, 1.0), (1.6, 0.0), (9.0, 0.0)]
)
def test_misses_lie_on_straight_lines_between_the_points_of_the_curve(cores: float, misses: float) -> None:
    assert POD.misses(cores) == pytest.approx(misses)


def test_without_a_curve_nothing_is_known_of_misses() -> None:
    assert replace(POD, curve=()).misses(1.0) is None


def test_a_pod_that_was_never_heard_has_counted_nothing() -> None:
    fresh = PodRow("a", "n1", 1.0, 1.0, 1.0, "steady")
    assert (fresh.rate, fresh.queued, fresh.running, fresh.met, fresh.missed, fresh.samples) == (0.0, 0, 0, 0, 0, 0)
    assert (fresh.slack_s, fresh.news_s, fresh.params, fresh.cost, fresh.curve) == (None, None, None, None, ())


@pytest.mark.parametrize(("allocatable", "reserved", "capacity"), [(4.0, 1.5, 2.5), (1.0, 0.5, 0.5), (1.0, 2.0, 0.0)])
def test_what_others_reserve_is_not_there_to_divide(allocatable: float, reserved: float, capacity: float) -> None:
    assert NodeRow("n1", allocatable, reserved, 0.0, 0.0, short=False).capacity == capacity


def test_a_node_is_found_by_its_name() -> None:
    assert OVERVIEW.node("n2") == replace(SHORT, name="n2")
    assert OVERVIEW.node("n3") is None


def test_what_is_written_is_plain_json_and_is_read() -> None:
    written = OVERVIEW.to_json()
    assert b" " not in written.replace(REVISION.why.encode(), b"")
    assert Overview.from_json(json.loads(written)) == OVERVIEW
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(OVERVIEW, age_s=float("nan")).to_json()


@pytest.mark.parametrize("left_out", ["cost", "params", "samples", "pending"])
def test_a_field_with_a_default_may_be_missing(left_out: str) -> None:
    document = json.loads(OVERVIEW.to_json())
    del document["revisions"][0]["pods"][0][left_out]
    (pod,) = Overview.from_json(document).revisions[0].pods
    assert getattr(pod, left_out) == PodRow.__dataclass_fields__[left_out].default


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"v": None}, {"age_s": "old"}, {"nodes": [{"name": "n1"}]}, {"revisions": None}]
)
def test_what_is_not_of_this_version_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BoardError):
        Overview.from_json({**json.loads(OVERVIEW.to_json()), **change})


@pytest.mark.parametrize("change", [{"max_batch": 0}, {"max_inflight": 0}, {"min_cores": -0.1}, {"wanted_pods": -1}])
def test_an_impossible_revision_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"max_batch|a revision"):
        replace(REVISION, **change)


@pytest.mark.parametrize("field", ["allocatable", "reserved", "divided", "wanted"])
@pytest.mark.parametrize("number", [-0.1, float("nan"), float("inf")])
def test_an_impossible_node_is_refused(field: str, number: float) -> None:
    with pytest.raises(ValueError, match="a node"):
        changed(NODE, {field: number})
    assert changed(NODE, {field: 0.0})


@pytest.mark.parametrize("field", ["cores", "target", "want", "rate", "queued", "running", "met", "missed"])
def test_an_impossible_pod_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="a pod"):
        changed(POD, {field: -1})
    assert changed(POD, {field: 0})
