"""A node is divided anew when what its division follows from has changed, and rests for a while once it was found unchanged."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.node_state import NodeState

ROW = NodeRow("n1", 8.0, 1.0, 2.0, 2.0, short=False)


def divided(inputs: object | None) -> NodeState:
    node = NodeState(3.0)
    node.divided(ROW, inputs)
    return node


def test_a_node_whose_inputs_are_the_same_is_unchanged_and_rests() -> None:
    node = divided(["a", 1.0])
    assert not node.rests(10.0), "nobody has looked yet"
    assert node.unchanged(["a", 1.0], 10.0)
    assert node.rests(12.9)
    assert not node.rests(13.0)


def test_a_node_with_another_input_has_changed() -> None:
    node = divided(["a", 1.0])
    assert not node.unchanged(["a", 2.0], 10.0)
    assert not node.rests(10.0)


def test_a_node_that_was_never_divided_has_changed() -> None:
    node = NodeState(3.0)
    assert not node.unchanged(["a", 1.0], 10.0)
    assert not node.rests(10.0)
    assert node.row is None
    assert not node.short


def test_a_node_that_has_to_be_divided_again_is_never_unchanged() -> None:
    node = divided(["a", 1.0])
    assert node.unchanged(["a", 1.0], 10.0)
    node.divided(replace(ROW, short=True), None)
    assert not node.rests(10.1)
    assert not node.unchanged(["a", 1.0], 10.1)
    assert node.short


def test_a_rest_is_never_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        NodeState(-1.0)


async def _until_cancelled() -> None:
    await asyncio.Event().wait()


def test_a_search_that_runs_ends_with_its_node_and_one_that_has_ended_is_left_alone() -> None:
    async def scenario() -> None:
        node = NodeState(3.0)
        node.close()
        search = asyncio.create_task(_until_cancelled())
        node.refine(search)
        node.close()
        with pytest.raises(asyncio.CancelledError):
            await search
        other = asyncio.create_task(_until_cancelled())
        node.refine(other)
        node.refined()
        node.close()
        await asyncio.sleep(0)
        assert not other.cancelled()
        other.cancel()

    asyncio.run(scenario())
