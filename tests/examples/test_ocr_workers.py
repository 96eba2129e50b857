from __future__ import annotations

import asyncio
import os
import threading

import pytest
from ocr_server.workers import Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


class Gate:
    """Work that waits until `together` rows are at work at once; more threads than rows allowed would be seen."""

    def __init__(self, together: int) -> None:
        self._barrier = threading.Barrier(together, timeout=10)
        self.threads: set[int] = set()

    def __call__(self, row: int) -> int:
        self.threads.add(threading.get_ident())
        self._barrier.wait()
        return row * row


@pytest.mark.parametrize(("cores", "threads"), [(0.1, 1), (1.0, 1), (1.01, 2), (3.5, 4), (64.0, 4)])
async def test_rows_run_side_by_side_on_as_many_threads_as_cores_begun(cores: float, threads: int) -> None:
    gate = Gate(threads)
    workers: Workers[int, int] = Workers(gate, 1)
    assert workers.resize(cores) == threads
    rows = list(range(threads * 2))
    assert await workers.run(rows) == [row * row for row in rows]
    assert len(gate.threads) <= threads
    workers.close()


async def test_answers_keep_the_order_of_the_rows() -> None:
    workers: Workers[int, int] = Workers(lambda row: -row, 3)
    for count in (1, 2, 3, 7):
        assert await workers.run(range(count)) == [-row for row in range(count)]
    workers.close()


async def test_batches_run_one_after_another() -> None:
    running = 0
    most = 0

    def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1

    workers: Workers[int, None] = Workers(work, 1)
    await asyncio.gather(*(workers.run([1, 2, 3]) for _ in range(20)))
    assert most == 1
    workers.close()


async def test_a_row_that_fails_fails_the_batch_and_not_the_next_one() -> None:
    def work(row: int) -> int:
        if row == 2:
            raise KeyError(row)
        return row

    workers: Workers[int, int] = Workers(work, 2)
    with pytest.raises(KeyError):
        await workers.run([1, 2, 3])
    assert await workers.run([1, 3]) == [1, 3]
    workers.close()


@pytest.mark.parametrize("cores", [0.0, -1.0, float("nan"), float("inf")])
async def test_impossible_cores_are_refused(cores: float) -> None:
    workers: Workers[int, int] = Workers(abs, 2)
    with pytest.raises(ValueError, match="cores"):
        workers.resize(cores)
    assert workers.threads == 2
    workers.close()
