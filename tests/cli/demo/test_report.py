from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.cli.demo.report import (
    StrategyRun,
    Summary,
    headline,
    in_service,
    integral,
    peaks,
    per_second,
    quantile,
    summarize,
    to_json,
)  # fmt: skip
from knative_sponge.profile.load import Outcome, Planned
from tests.cli.demo.sample_run import OUTCOMES, RUN, outcome

step_functions = st.lists(
    st.tuples(st.floats(-5, 20), st.floats(0, 10)), min_size=1, max_size=8, unique_by=lambda step: step[0]
).map(sorted)


def test_a_run_comes_to_the_figures_counted_by_hand() -> None:
    summary = summarize(RUN)
    assert (summary.requests, summary.missed, summary.dropped) == (6, 3, 1)
    assert summary.missed_share == 0.5
    assert summary.core_seconds == pytest.approx(2 * 1.0 + 3 * 0.5)
    assert summary.mean_cores == pytest.approx(0.7)
    assert summary.p50_s == pytest.approx(0.3)
    assert summary.p99_s == pytest.approx(0.9)
    assert summary.mean_batch == pytest.approx(4 / 3)  # batches of 2, 1 and 1


def case(**figures: tuple[float, float]) -> dict[str, Summary]:
    """Of each strategy the share that was missed, and the mean cores."""
    base = summarize(RUN)
    names = {name: name.replace("_", "-") for name in figures}
    return {
        names[name]: replace(base, missed_share=share, mean_cores=cores) for name, (share, cores) in figures.items()
    }


@pytest.mark.parametrize(
    ("summaries", "title"),
    [
        (
            case(sponge=(0.004, 1.2), static_mean=(0.1, 1.2), fifo=(0.2, 1.2), static_max=(0.01, 3.4)),
            "sponge missed 0.4 % of the deadlines with 1.20 cores; no other strategy missed fewer",
        ),
        (
            case(sponge=(0.004, 1.2), static_mean=(0.1, 1.2), most=(0.001, 3.4)),
            "sponge missed 0.4 % of the deadlines with 1.20 cores; fewer only with more cores, as most: 0.1 % with 3.40 cores",
        ),
        (
            case(sponge=(0.3, 1.2), static_mean=(0.2, 1.2), fifo=(0.1, 1.21), static_max=(0.0, 3.4)),
            "sponge missed 30.0 % of the deadlines with 1.20 cores, more than fifo: 10.0 % with 1.21 cores",
        ),
        (
            case(sponge=(0.0, 1.2), fifo=(0.0, 1.2)),
            "sponge missed 0.0 % of the deadlines with 1.20 cores, as every other strategy",
        ),
        (case(sponge=(0.0, 1.2)), "sponge missed 0.0 % of the deadlines with 1.20 cores"),
    ],
)
def test_the_title_says_who_missed_less_whoever_it_was(summaries: dict[str, Summary], title: str) -> None:
    assert headline(summaries) == title


def test_a_refused_request_counts_as_missed_even_before_its_deadline() -> None:
    assert summarize(StrategyRun("s", 5.0, (outcome(1.0, 0.1, status=504),), ((0.0, 1.0),))).missed == 1


def test_an_answer_at_the_very_deadline_meets_it() -> None:
    exact = Outcome(Planned(1.0, 0.0, 0.5), 0.0, 1.5, 200)
    assert summarize(StrategyRun("s", 5.0, (exact,), ((0.0, 1.0),))).missed == 0


def test_without_answers_there_are_no_latencies() -> None:
    summary = summarize(StrategyRun("s", 5.0, (outcome(1.0, 9.0, status=0),), ((0.0, 1.0),)))
    assert (summary.p50_s, summary.p99_s, summary.mean_batch, summary.missed_share) == (None, None, None, 1.0)
    assert summarize(StrategyRun("s", 5.0, (), ((0.0, 1.0),))).missed_share == 0.0


def test_the_json_report_has_exactly_the_agreed_fields() -> None:
    report = json.loads(json.dumps(to_json({"cpu": "one"}, {"fifo": summarize(RUN)})))
    assert report.keys() == {"machine", "strategies"}
    assert report["strategies"]["fifo"].keys() == {
        "requests", "missed", "dropped", "missed_share", "mean_cores", "core_seconds", "p50_s", "p99_s", "mean_batch",
    }  # fmt: skip


@given(step_functions, st.floats(0.1, 25))
def test_the_integral_is_the_area_under_the_steps(steps: list[tuple[float, float]], until: float) -> None:
    grid = sorted({0.0, until} | {at for at, _ in steps if 0 < at < until})
    area = sum(
        (end - start) * next((value for at, value in reversed(steps) if at <= start), 0.0)
        for start, end in pairwise(grid)
    )
    assert integral(steps, until) == pytest.approx(area, abs=1e-9)


@given(step_functions, st.integers(1, 40))
def test_peaks_are_the_largest_value_in_each_interval(steps: list[tuple[float, float]], count: int) -> None:
    found = peaks(steps, count, 0.5)
    for index, peak in enumerate(found):
        start, end = index * 0.5, (index + 1) * 0.5
        before = [value for at, value in steps if at <= start][-1:]
        within = [value for at, value in steps if start < at < end]
        assert peak == max([0.0, *before, *within])


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 2), st.floats(0, 3)), max_size=20))
def test_requests_in_service_are_those_handed_over_and_not_ended(requests: list[tuple[float, float, float]]) -> None:
    outcomes = [Outcome(Planned(at, network, 1), 0, at + network + stay, 200) for at, network, stay in requests]
    steps = in_service(outcomes)
    assert steps[-1][1] == 0
    for at, count in steps:
        if all(step == (at, count) or step[0] != at for step in steps):
            assert count == sum(one.planned.reaches_s <= at < one.ended_s for one in outcomes)


@given(st.lists(st.floats(0, 30)), st.integers(1, 20))
def test_every_time_is_counted_in_one_second(times: list[float], seconds: int) -> None:
    counts = per_second(times, seconds)
    assert sum(counts) == len(times)
    for second in range(seconds - 1):
        assert counts[second] == sum(second <= time < second + 1 for time in times)


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    value = quantile(sorted(values), share)
    assert value is not None
    assert sum(one <= value for one in values) >= share * len(values) - 1e-9
    assert sum(one < value for one in values) < max(share * len(values), 1) + 1e-9


@pytest.mark.parametrize("cores", [(), ((0.5, 1.0),)])
def test_cores_unknown_at_the_start_are_refused(cores: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="cores"):
        StrategyRun("s", 5.0, OUTCOMES, cores)


def test_a_run_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="last"):
        StrategyRun("s", 0.0, OUTCOMES, ((0.0, 1.0),))


def test_order_of_outcomes_does_not_matter() -> None:
    shuffled = list(OUTCOMES)
    random.Random(3).shuffle(shuffled)
    assert summarize(StrategyRun("sponge", 5.0, tuple(shuffled), RUN.cores)) == summarize(RUN)
