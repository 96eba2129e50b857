"""What the learner remembers of neighbouring batches and sizes."""

from __future__ import annotations

from knative_sponge.core.latency.curve import DEFAULT_SHAPE, Sample
from knative_sponge.core.latency.learning import Learner


def test_a_region_counts_the_measurements_that_it_was_learned_from() -> None:
    learner = Learner(DEFAULT_SHAPE, 0.98)
    for _ in range(3):
        learner.observe(Sample(1, 1.0, 0.1), 0.1)
    learner.observe(Sample(8, 1.0, learner.params.latency_s(8, 1.0)), 0.1)
    assert {region: memory.visits for region, memory in learner.regions.items()} == {(0, 0): 3, (3, 0): 1}


def test_a_region_is_a_plain_mean_at_first() -> None:
    learner = Learner(DEFAULT_SHAPE, 0.98)
    learner.observe(Sample(1, 1.0, 0.1), 0.1)
    first = learner.regions[0, 0].evidence
    learner.observe(Sample(1, 1.5, learner.params.latency_s(1, 1.5)), 0.1)
    second = learner.regions[0, 0].evidence
    alone = Learner(learner.params, 0.98)
    alone.observe(Sample(1, 1.5, learner.params.latency_s(1, 1.5)), 0.1)
    other = alone.regions[0, 0].evidence
    assert [round(2 * mean - one, 6) for mean, one in zip(second, first, strict=True)] == [round(x, 6) for x in other]
