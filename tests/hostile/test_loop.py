"""Invariant: while a giant is parsed, merged or split, the event loop goes on and everybody else is served."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from knative_sponge.codec.base import Answer, Call, Codec, Part, RequestHead
from knative_sponge.codec.select import codec_for
from knative_sponge.core.batching.batcher import BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.proxy.queue.endpoint import RequestRules
from tests.proxy.harness import on_loop
from tests.proxy.queue.inference_kit import FakeServer, Kit, behind_a_batch

MOST_BETWEEN_S = 0.4
"""CPU seconds that pass, in all threads, until the loop's turn comes; on the loop itself these took 1 s and 12 s."""
MANY_ROWS = b'{"instances":[' + b"0," * (8 * 2**20 - 1) + b"0]}"
MANY_STRINGS = b'{"instances":[' + b'"0123456789012345",' * 200_000 + b'""]}'
SMALL = b'{"instances":["small"]}'


@asynccontextmanager
async def heartbeat() -> AsyncIterator[list[float]]:
    """CPU seconds of the whole process between two turns of the loop, while the block runs."""
    gaps = [0.0]

    async def beat() -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            gaps.append(now - last)
            last = now

    task = asyncio.create_task(beat())
    await asyncio.sleep(0.01)  # the first beats
    try:
        yield gaps
    finally:
        task.cancel()


class Gate:
    """A codec whose work on giants stands still until it is let go, and that tells who worked and how often."""

    def __init__(self, inner: Codec) -> None:
        self._inner = inner
        self.name: str = inner.name
        self.go = threading.Event()
        self.begun = threading.Event()
        self.parsed: list[int] = []
        self.threads: dict[str, str] = {}

    def wants(self, head: RequestHead) -> bool:
        return self._inner.wants(head)

    def parse(self, head: RequestHead, body: bytes) -> Part:
        self.parsed.append(len(body))
        self._enter("parse", len(body))
        return self._inner.parse(head, body)

    def merge(self, parts: Sequence[Part]) -> Call:
        self._enter("merge", sum(len(part.body) for part in parts) if len(parts) > 1 else 0)
        return self._inner.merge(parts)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        self._enter("split", len(answer.body))
        return self._inner.split(parts, answer)

    def _enter(self, work: str, size: int) -> None:
        giant = size > 2**20
        self.threads[f"{work} of a {'giant' if giant else 'small one'}"] = threading.current_thread().name
        if giant:
            self.begun.set()
            assert self.go.wait(30), "nobody let it go"


def gated(**options: object) -> tuple[Kit, Gate]:
    kit = Kit(**options)  # type: ignore[arg-type]
    gate = Gate(codec_for("v1"))
    kit.endpoint._codec = gate
    return kit, gate


async def begun(gate: Gate) -> None:
    while not gate.begun.is_set():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("body", [MANY_ROWS, MANY_STRINGS], ids=["very many rows", "very many strings"])
@on_loop
async def test_the_loop_goes_on_while_giants_are_parsed(body: bytes) -> None:
    kit = Kit(server=FakeServer(lambda call: Answer(200, [], b'{"predictions":[0]}')))
    async with heartbeat() as gaps:
        giants = [kit.post(body) for _ in range(6)]  # more have no room
        small = await kit.post(SMALL)
        replies = await asyncio.gather(*giants)
    assert small.status == 200
    assert {reply.status for reply in replies} == {413}
    assert "max-rows" in replies[0].json["error"]
    assert max(gaps) < MOST_BETWEEN_S


@on_loop
async def test_a_small_request_overtakes_a_giant_that_came_before_it_and_never_leaves_the_loop() -> None:
    kit, gate = gated(server=FakeServer(lambda call: Answer(200, [], b'{"predictions":[0]}')))
    giant = kit.post(MANY_STRINGS)
    await begun(gate)
    assert (await kit.post(SMALL)).status == 200
    assert not giant.done()
    gate.go.set()
    assert (await giant).status == 413
    assert gate.threads["parse of a small one"] == threading.main_thread().name
    assert gate.threads["parse of a giant"].startswith("giant")


@on_loop
async def test_a_client_that_leaves_while_its_body_is_parsed_costs_nothing_afterwards() -> None:
    kit, gate = gated(requests=RequestRules(slo_s=30.0, timeout_s=60.0, max_rows=10**6))
    parsed, queued = kit.post(MANY_STRINGS), kit.post(MANY_STRINGS + b" ")
    await begun(gate)
    for client in (parsed, queued):
        client.cancel()
    await asyncio.gather(parsed, queued, return_exceptions=True)
    gate.go.set()
    small = kit.post(SMALL)
    call = await kit.server.call(0)
    assert call.instances == ["small"]
    call.reply()
    assert (await small).status == 200
    # The thread takes one after the other: what waited in it would be parsed by now.
    assert (await kit.post(MANY_STRINGS + b"xx")).status == 400
    assert len(MANY_STRINGS) in gate.parsed
    assert len(MANY_STRINGS) + 1 not in gate.parsed
    assert len(kit.server.calls) == 1


@on_loop
async def test_the_deadline_of_a_giant_counts_from_the_arrival_of_its_head() -> None:
    kit, gate = gated(requests=RequestRules(slo_s=30.0, timeout_s=60.0, max_rows=10**6))
    giant = kit.post(MANY_STRINGS, x_sponge_slo_ms="1")
    await begun(gate)
    await asyncio.sleep(0.01)  # let the deadline pass
    gate.go.set()
    reply = await giant
    assert (reply.status, reply.reason) == (504, b"expired")
    assert not kit.server.calls


@on_loop
async def test_a_giant_that_is_no_request_is_refused_as_a_small_one_is() -> None:
    kit = Kit()
    reply = await kit.post(MANY_STRINGS + b"x")
    assert (reply.status, reply.reason) == (400, b"bad-request")
    assert kit.counted("bad-request") == 1


@on_loop
async def test_what_is_parsed_when_the_proxy_ends_is_told_so() -> None:
    kit, gate = gated()
    parsed, queued = kit.post(MANY_STRINGS), kit.post(MANY_STRINGS)
    await begun(gate)
    await kit.endpoint.close()
    gate.go.set()
    for reply in (await parsed, await queued):
        assert (reply.status, reply.reason) == (503, b"draining")
    assert len(gate.parsed) == 1


@on_loop
async def test_giant_calls_are_merged_and_giant_answers_split_beside_the_loop() -> None:
    rules = BatchRules(max_rows=8, defer=DeferRules(mode="never"))
    kit, gate = gated(rules=rules)
    gate.go.set()
    first = await behind_a_batch(kit)
    giants = [kit.send(letter * 12 * 2**20) for letter in "ab"]
    while len(kit.batcher.queue) < 2:
        await asyncio.sleep(0.001)
    first.reply()
    merged = await kit.server.call(1)
    merged.reply(200, b'{"predictions":["%b","%b"]}' % (b"y" * 2**21, b"z" * 2**21))
    one, two = await asyncio.gather(*giants)
    assert one.json == {"predictions": ["y" * 2**21]}
    assert two.json == {"predictions": ["z" * 2**21]}
    assert {gate.threads[f"{work} of a giant"].split("_")[0] for work in ("parse", "merge", "split")} == {"giant"}


@on_loop
async def test_a_request_of_more_rows_than_allowed_is_refused_and_told_the_setting() -> None:
    kit = Kit(requests=RequestRules(slo_s=30.0, timeout_s=60.0, max_rows=2))
    reply = await kit.send("a", "b", "c")
    assert (reply.status, reply.reason) == (413, b"bad-request")
    assert reply.json["error"] == "the request has 3 rows; max-rows allows 2"
    allowed = kit.send("a", "b")
    (await kit.server.call(0)).reply()
    assert (await allowed).status == 200
