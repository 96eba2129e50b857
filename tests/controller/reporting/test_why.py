"""The sentence on a revision's sizes, where several things press or hardly any does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from knative_sponge.controller.reporting.rows import PodRow
from knative_sponge.controller.reporting.why import stale, why
from tests.controller.reporting.board_kit import NODE, POD, SHORT, steady

NOTHING_MISSED = ((0.4, 0.0), (1.6, 0.0))


def said(*pods: PodRow, wanted: int = 1) -> str:
    return why(pods, wanted, {"n1": NODE, "n2": replace(SHORT, name="n2")}.get)


@pytest.mark.parametrize(("news_s", "is_stale"), [(None, True), (5.1, True), (5.0, False), (0.0, False)])
def test_a_demand_is_stale_after_five_seconds(news_s: float | None, is_stale: bool) -> None:
    assert stale(replace(POD, news_s=news_s)) == is_stale


def test_a_revision_without_pods_waits_for_them_or_is_at_zero() -> None:
    assert said(wanted=3) == "waits for 3 pods to start"
    assert said(wanted=0) == "at zero: no requests"


def test_the_pod_that_lacks_most_names_the_node() -> None:
    lacks_more, lacks_less = steady(node="n2", want=3.1), steady(node="n1", want=1.3)
    short = "short: node n2 has 2.5 cores for 3.1 wanted"
    assert said(lacks_less, lacks_more) == said(lacks_more, lacks_less) == short
    large = steady(node="n1", cores=4.0, target=4.0, want=4.0)
    assert said(large, lacks_more) == short


def test_a_short_node_that_gave_a_pod_all_presses_nobody() -> None:
    assert said(steady(node="n2", curve=NOTHING_MISSED)) == "1.2 cores are enough for 14.2 rows/s"


@pytest.mark.parametrize(
    ("missed", "sentence"),
    [
        (0.005, "wants 1.2 cores: 0.005 rows/s miss at 0.8"),
        (0.004, "wants 1.2 cores, has 0.8"),
    ],
)
def test_hardly_any_misses_are_not_worth_a_word_of_a_growth(missed: float, sentence: str) -> None:
    assert said(replace(POD, curve=((0.8, missed), (9.0, missed)))) == sentence


@pytest.mark.parametrize(
    ("missed", "sentence"),
    [
        (0.005, "0.005 rows/s miss, and more cores would save none of them"),
        (0.004, "1.2 cores are enough for 14.2 rows/s"),
    ],
)
def test_hardly_any_misses_are_not_worth_a_word_of_an_enough_size(missed: float, sentence: str) -> None:
    assert said(steady(curve=((0.8, missed), (9.0, missed)))) == sentence


@pytest.mark.parametrize(("want", "more"), [(1.1, False), (1.0, True)])
def test_a_size_ahead_of_need_is_told_above_a_tenth(want: float, more: bool) -> None:
    assert ("nobody else needs now" in said(steady(want=want, curve=NOTHING_MISSED))) == more


def test_pods_are_counted_together() -> None:
    pods = (steady(curve=NOTHING_MISSED), steady(curve=NOTHING_MISSED, want=1.3))
    assert said(*pods) == "wants 2.5 cores, has 2.4"
