"""Requests that the model server refuses, among others that it takes: what they cost in calls, and who reads what."""

from __future__ import annotations

import asyncio
import json

import pytest

from knative_sponge.codec.base import Answer, Call
from knative_sponge.core.batching.batcher import BatchRules
from knative_sponge.core.batching.defer import DeferRules
from tests.proxy.harness import on_loop
from tests.proxy.queue.inference_kit import Kit, Reply, behind_a_batch


def respond(call: Call) -> Answer:
    """Refuses a call with a bad row, and names every row in it."""
    rows = json.loads(call.body)["instances"]
    if any(str(row).startswith("bad") for row in rows):
        return Answer(422, [], json.dumps({"error": rows}).encode())
    return Answer(200, [], json.dumps({"predictions": [{"of": row} for row in rows]}).encode())


async def answers(rows: list[str]) -> tuple[int, list[Reply]]:
    """Calls that a merged call of these took, itself included, and what each client read."""
    kit = Kit(rules=BatchRules(max_rows=32, defer=DeferRules(mode="never")))
    first = await behind_a_batch(kit)
    kit.server.respond = respond
    clients = [kit.send(row) for row in rows]
    await asyncio.sleep(0)
    first.reply()
    replies = await asyncio.gather(*clients)
    return len(kit.server.calls) - 1, replies


@on_loop
@pytest.mark.parametrize(
    ("bad", "calls"),
    [
        pytest.param({5}, 11, id="one of 32"),
        pytest.param({5, 30}, 21, id="two of 32"),
        pytest.param(set(range(32)), 41, id="all 32"),
    ],
)
async def test_bad_rows_cost_few_calls_and_nobody_else_an_answer(bad: set[int], calls: int) -> None:
    rows = [f"bad-{number}" if number in bad else f"good-{number}" for number in range(32)]
    took, replies = await answers(rows)
    assert took <= calls
    for row, reply in zip(rows, replies, strict=True):
        if row.startswith("bad"):
            assert (reply.status, reply.json) == (422, {"error": [row]}), "its own words, and of its own row alone"
        else:
            assert (reply.status, reply.json) == (200, {"predictions": [{"of": row}]})
