"""What follows from what is known of one pod's size, fact by fact."""

from __future__ import annotations

import pytest

from knative_sponge.core.resizing.events import PatchDone, Seen
from knative_sponge.core.resizing.facts import ResizeFacts, ResizePhase, equal
from knative_sponge.core.resizing.proxy_view import ProxyView


def facts(*seen: Seen) -> ResizeFacts:
    known = ResizeFacts(0.011)
    for each in seen:
        known.see(each)
        known.forget_superseded()
    return known


STEADY = Seen(0.5, 0.5, generation=3, observed=3)


def test_nothing_is_counted_before_the_pod_was_seen() -> None:
    known = facts()
    assert (known.asked, known.committed, known.proxy_view, known.verdict) == (0.0, 0.0, None, ResizePhase.PATCHED)


def test_what_was_asked_for_is_the_most_of_what_was_accepted_or_may_be() -> None:
    known = facts(STEADY)

    def cores() -> tuple[float | None, float | None, float]:
        return known.flight, known.doubt, known.asked

    assert cores() == (None, None, 0.5)
    known.flight = 0.7
    assert cores() == (0.7, None, 0.7)
    known.lose(0.7)
    assert cores() == (None, 0.7, 0.7)
    known.lose(0.6)
    assert cores() == (None, 0.7, 0.7)
    known.accept(0.4, 4)
    assert cores() == (None, None, 0.4)


@pytest.mark.parametrize(
    ("seen", "flight", "doubt", "committed"),
    [
        (Seen(0.5, 0.4, allocated=0.3), None, None, 0.5),
        (Seen(0.3, 0.4, allocated=0.3), None, None, 0.4),
        (Seen(0.3, 0.4, allocated=0.6), None, None, 0.6),
        (Seen(0.3, 0.4), 0.7, None, 0.7),
        (Seen(0.3, 0.4), None, 0.8, 0.8),
    ],
)
def test_a_pod_takes_the_most_that_it_has_or_may_get(
    seen: Seen, flight: float | None, doubt: float | None, committed: float
) -> None:
    known = facts(seen)
    known.flight, known.doubt = flight, doubt
    assert known.committed == committed


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (STEADY, ResizePhase.STEADY),
        (Seen(0.5, 0.5), ResizePhase.STEADY),
        (Seen(0.5, 0.5, generation=3), ResizePhase.STEADY),  # a kubelet that tells no generation
        (Seen(0.5, 0.5, generation=3, observed=2), ResizePhase.PATCHED),
        (Seen(0.5, 0.5, generation=3, observed=4), ResizePhase.STEADY),
        (Seen(0.5, 0.51), ResizePhase.STEADY),
        (Seen(0.5, 0.512), ResizePhase.PATCHED),
        (Seen(0.5, None), ResizePhase.PATCHED),
        (Seen(0.5, 0.5, pending="Deferred"), ResizePhase.DEFERRED),
        (Seen(0.5, 0.5, pending="Infeasible", progress="Error"), ResizePhase.INFEASIBLE),
        (Seen(0.5, 0.5, progress="Error"), ResizePhase.ERROR),
        (Seen(0.6, 0.5, progress="InProgress"), ResizePhase.IN_PROGRESS),
        (Seen(0.6, 0.5, progress="InProgress", generation=3, observed=2), ResizePhase.PATCHED),
    ],
)
def test_the_phase_is_read_off_a_status_about_this_spec(seen: Seen, verdict: ResizePhase) -> None:
    assert facts(seen).verdict is verdict


def test_a_doubt_is_not_steady() -> None:
    known = facts(STEADY)
    known.lose(0.5)
    assert known.verdict is ResizePhase.PATCHED


def test_an_older_object_than_the_answer_to_a_patch_says_nothing_of_spec() -> None:
    known = facts(STEADY)
    assert known.accept(0.8, 4)
    known.see(Seen(0.5, 0.6, generation=3, observed=3, allocated=0.5))
    assert (known.spec, known.in_force, known.verdict) == (0.8, 0.6, ResizePhase.PATCHED)
    known.see(Seen(0.8, 0.8, generation=4, observed=4))
    assert known.verdict is ResizePhase.STEADY


def test_a_patch_that_changes_nothing_leaves_the_status_what_it_is() -> None:
    known = facts(STEADY)
    verdicts = [(known.accept(0.5, generation), known.verdict) for generation in (3, 4)]
    assert verdicts == [(False, ResizePhase.STEADY), (True, ResizePhase.PATCHED)]
    assert known.accept(0.6, 4)


def test_a_growth_is_coming_until_it_is_barred() -> None:
    assert facts(STEADY, Seen(0.8, 0.5, progress="InProgress", generation=4)).proxy_view == ProxyView(
        0.5, 0.8, shown=True
    )
    for pending, progress in (("Deferred", ""), ("Infeasible", ""), ("", "Error")):
        known = facts(STEADY, Seen(0.8, 0.5, pending, progress, generation=4))
        assert known.proxy_view == ProxyView(0.5, None, shown=True)


def test_a_shrink_in_flight_is_planned_with_and_a_growth_in_flight_is_not() -> None:
    known = facts(STEADY)
    known.flight = 0.3
    assert known.proxy_view == ProxyView(0.3, None, shown=False)
    known.flight = 0.8
    assert known.proxy_view == ProxyView(0.5, None, shown=True)


def test_what_spec_was_in_between_may_still_come_into_force() -> None:
    known = facts(STEADY)
    known.accept(0.2, 4)
    known.accept(0.8, 5)
    assert known.proxy_view == ProxyView(0.2, 0.8, shown=False)
    known.see(Seen(0.8, 0.8, generation=5, observed=5))
    known.forget_superseded()
    assert known.proxy_view == ProxyView(0.8, None, shown=True)


def test_a_kubelet_that_defers_a_growth_has_let_go_of_what_was_before() -> None:
    known = facts(STEADY)
    known.accept(0.2, 4)
    known.see(Seen(0.8, 0.5, "Deferred", generation=5, observed=5, allocated=0.5))
    known.forget_superseded()
    assert known.proxy_view == ProxyView(0.5, None, shown=True)
    known.accept(0.2, 6)
    known.see(Seen(0.8, 0.5, "Deferred", "InProgress", generation=7, observed=7, allocated=0.5))
    known.forget_superseded()
    assert known.proxy_view == ProxyView(0.2, None, shown=False)


def test_a_deferred_growth_leaves_what_is_in_force_where_it_was_never_steady() -> None:
    known = facts(STEADY, Seen(1.2, 0.8, "Deferred", generation=4, observed=4, allocated=0.8))
    assert known.proxy_view == ProxyView(0.8, None, shown=True)


@pytest.mark.parametrize(("allocated", "cores"), [(None, 0.5), (0.5, 0.5), (0.6, 0.2)])
def test_a_deferred_growth_ends_older_shrinks_where_the_kubelet_has_nothing_admitted(
    allocated: float | None, cores: float
) -> None:
    known = facts(STEADY)
    known.accept(0.2, 4)
    known.see(Seen(0.8, 0.5, "Deferred", generation=5, observed=5, allocated=allocated))
    known.forget_superseded()
    assert known.proxy_view is not None
    assert known.proxy_view.cores == cores


def test_a_shrink_whose_answer_was_lost_is_planned_with() -> None:
    known = facts(STEADY)
    known.lose(0.2)
    known.forget_superseded()
    assert known.proxy_view == ProxyView(0.2, 0.5, shown=False)
    known.see(Seen(0.8, 0.5, "Deferred", generation=4, observed=4, allocated=0.5))
    known.forget_superseded()
    assert known.proxy_view == ProxyView(0.2, None, shown=False)


def test_generations_are_0_where_unknown() -> None:
    assert PatchDone(1.0).generation == Seen(1.0, 1.0).generation == Seen(1.0, 1.0).observed == 0


def test_the_first_sight_believes_the_least_that_it_shows() -> None:
    assert facts(Seen(0.8, 0.5, allocated=0.3)).proxy_view == ProxyView(0.3, 0.8, shown=False)
    assert facts(Seen(0.8, 0.5)).proxy_view == ProxyView(0.5, 0.8, shown=True)
    assert facts(Seen(0.8, 0.5, generation=2, observed=1)).proxy_view is None


def test_sizes_are_one_within_half_a_millicore() -> None:
    assert equal(1.0, 1.0004)
    assert not equal(1.0, 1.001)
    assert not equal(1.0, None)
