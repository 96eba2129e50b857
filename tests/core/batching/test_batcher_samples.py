"""What the batcher tells its latency model of the batches that were answered."""

from __future__ import annotations

import math

import pytest

from knative_sponge.core.batching.batcher import Batcher
from knative_sponge.core.batching.events import Arrived, BatchDone, BatchFailed, CoresChanged, Dispatch
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.curve import Sample
from knative_sponge.core.latency.model import LatencyModel
from tests.core.batching.virtual_shell import PARAMS, new_batcher


class Recorder(LatencyModel):
    """Remembers what it is told and learns nothing from it."""

    def __init__(self) -> None:
        super().__init__(PARAMS)
        self.seen: list[Sample] = []

    def observe(self, sample: Sample, now: float) -> None:
        self.seen.append(sample)


def start(batcher: Batcher, key: int, now: float) -> int:
    """The number of the batch that a request starts."""
    commands = batcher.handle(Arrived(Work(key, now + 9.0)), now)
    return next(command.batch for command in commands if isinstance(command, Dispatch))


def test_batches_are_cold_until_one_was_measured_and_again_when_the_server_broke() -> None:
    model = Recorder()
    batcher = new_batcher(model=model)
    batcher.handle(BatchDone(start(batcher, 1, 0.0), sample=False), 1.0)
    batcher.handle(BatchDone(start(batcher, 2, 1.0)), 2.0)
    batcher.handle(BatchDone(start(batcher, 3, 2.0)), 3.0)
    batcher.handle(BatchFailed(start(batcher, 4, 3.0), broken=False), 4.0)
    batcher.handle(BatchDone(start(batcher, 5, 4.0)), 5.0)
    batcher.handle(BatchFailed(start(batcher, 6, 5.0)), 6.0)
    batcher.handle(BatchFailed(start(batcher, 7, 6.0), broken=False), 7.0)
    batcher.handle(BatchDone(start(batcher, 8, 7.0)), 8.0)
    batcher.handle(BatchDone(start(batcher, 9, 8.0)), 9.0)
    assert [sample.cold for sample in model.seen] == [True, False, False, True, False]


def test_a_batch_of_too_many_sizes_is_no_sample_and_yet_ends_the_cold_start() -> None:
    model = Recorder()
    batcher = new_batcher(model=model)
    batch = start(batcher, 1, 0.0)
    batcher.handle(CoresChanged(3.0), 0.5)
    batcher.handle(BatchDone(batch), 1.0)
    assert model.seen == []
    batcher.handle(BatchDone(start(batcher, 2, 1.0)), 2.0)
    assert [(sample.cold, sample.cores) for sample in model.seen] == [(False, 3.0)]


def test_a_batch_knows_how_long_the_server_had_rested() -> None:
    model = Recorder()
    batcher = new_batcher(model=model, max_inflight=2)
    first = start(batcher, 1, 1.0)
    second = start(batcher, 2, 1.5)
    batcher.handle(BatchDone(second), 2.0)
    batcher.handle(BatchDone(first), 3.0)
    batcher.handle(BatchDone(start(batcher, 3, 3.75)), 4.0)
    assert [sample.rested_s for sample in model.seen] == [0.0, math.inf, 0.75]


@pytest.mark.parametrize(("infer_s", "seconds"), [(None, 0.5), (0.4, 0.4)])
def test_a_batch_took_what_its_shell_measured_or_the_time_since_it_was_sent(
    infer_s: float | None, seconds: float
) -> None:
    model = Recorder()
    batcher = new_batcher(model=model, cores=3.0, max_inflight=2)
    batcher.handle(BatchDone(start(batcher, 1, 2.0), infer_s), 2.5)
    assert [(sample.rows, sample.cores, sample.seconds) for sample in model.seen] == [(1, 1.5, seconds)]
