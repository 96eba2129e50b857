"""A node is settled while all is as it was when it was divided, and rests for a while once that was found."""

from __future__ import annotations

import pytest

from knative_sponge.controller.sizing.unchanged import UnchangedNodes


def test_what_is_as_it_was_holds_and_rests() -> None:
    settled = UnchangedNodes(3.0)
    settled.settle("n1", ["a", 1.0])
    assert not settled.rests("n1", 10.0), "nobody has looked yet"
    assert settled.holds("n1", ["a", 1.0], 10.0)
    assert settled.rests("n1", 12.9)
    assert not settled.rests("n1", 13.0)
    assert not settled.rests("n2", 10.0)


def test_what_has_changed_does_not_hold() -> None:
    settled = UnchangedNodes(3.0)
    settled.settle("n1", ["a", 1.0])
    assert not settled.holds("n1", ["a", 2.0], 10.0)
    assert not settled.holds("n2", ["a", 1.0], 10.0)
    assert not settled.rests("n1", 10.0)


@pytest.mark.parametrize("ends", [lambda one: one.settle("n1", None), lambda one: one.forget("n1")])
def test_what_has_to_be_divided_again_neither_holds_nor_rests(ends: object) -> None:
    settled = UnchangedNodes(3.0)
    settled.settle("n1", ["a", 1.0])
    assert settled.holds("n1", ["a", 1.0], 10.0)
    ends(settled)  # type: ignore[operator]
    assert not settled.rests("n1", 10.1)
    assert not settled.holds("n1", ["a", 1.0], 10.1)


def test_a_rest_is_never_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        UnchangedNodes(-1.0)
