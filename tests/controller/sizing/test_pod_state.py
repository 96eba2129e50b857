"""What the divider knows of a pod: when a line matters, what is claimed, how long a size is held, how long it was silent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knative_sponge.controller.sizing.claim_holds import Hold
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.wire.demand import DemandLine


def known(asked: float = 1.0, sized_s: float = 0.0) -> tuple[PodState, Any]:
    """A pod seen first at 100 s, and what stands in for its resizer."""
    pod, machine = (
        SimpleNamespace(admitted=0.0, size=asked, in_force=asked),
        SimpleNamespace(asked=asked, accepted=asked),
    )
    resizer: Any = SimpleNamespace(pod=pod, machine=machine, sized_s=sized_s)
    return PodState(resizer, GrowthRules(), 100.0), resizer


def line(want: float) -> DemandLine:
    return DemandLine(cores=1.0, want=want)


def test_a_line_matters_when_it_is_the_first_or_wants_something_else_or_ends_a_silence() -> None:
    pod, _ = known()
    heard = [(100.0, 0.5), (101.0, 0.5), (102.0, 0.6), (103.0, 0.55), (106.0, 0.55), (109.1, 0.55)]
    assert [pod.hear(line(want), at_s) for at_s, want in heard] == [True, False, True, True, False, True]


def test_a_line_matters_when_an_older_want_is_forgotten_with_it() -> None:
    pod, _ = known()
    pod.hear(line(0.9), 100.0)
    pod.hear(line(0.5), 101.0)
    assert not any(pod.hear(line(0.5), 102.0 + second) for second in range(7))
    assert pod.hear(line(0.5), 109.0)


@pytest.mark.parametrize(("hold", "cores"), [("nothing", 0.5), ("peak", 0.9), ("size", 2.0)])
def test_what_is_claimed_depends_on_what_is_held(hold: Hold, cores: float) -> None:
    pod, _ = known(asked=2.0)
    assert pod.cores(hold, 100.0) is None, "it has said nothing"
    pod.hear(line(0.9), 100.0)
    pod.hear(line(0.5), 101.0)
    assert pod.cores(hold, 104.0) == cores
    assert pod.cores(hold, 104.1) is None, "it is silent"


def test_a_size_is_held_for_8_s_and_each_hold_is_new_once() -> None:
    pod, resizer = known(sized_s=100.0)
    assert [pod.hold_ends_in(now) for now in (100.0, 108.0, 109.0)] == [8.0, 0.0, -1.0]
    assert [pod.new_hold(), pod.new_hold()] == [True, False]
    resizer.sized_s = 105.0
    assert [pod.new_hold(), pod.new_hold()] == [True, False]


def test_a_pod_is_silent_since_its_last_line_or_since_it_was_seen() -> None:
    pod, _ = known()
    assert pod.silent_s(130.0) == 30.0
    pod.hear(line(0.5), 125.0)
    assert pod.silent_s(130.0) == 5.0


def test_what_a_pod_was_admitted_with_counts_as_far_as_it_held_it_when_it_was_seen_first() -> None:
    pod, resizer = known(asked=2.0)
    assert pod.admitted == 0.0
    resizer.pod.admitted = 1.5
    assert pod.admitted == 1.5, "its key was read later"
    resizer.pod.size = resizer.pod.in_force = resizer.pod.admitted = 8.0
    assert pod.admitted == 2.0
    resizer.pod.admitted = 0.0
    seen = SimpleNamespace(pod=SimpleNamespace(admitted=6.0, size=6.0, in_force=0.5), machine=resizer.machine)
    growing: Any = seen
    assert PodState(growing, GrowthRules(), 100.0).admitted == 0.5, "what is only asked for is not held"
    seen.pod = SimpleNamespace(admitted=0.0, size=0.2, in_force=0.2)
    assert PodState(growing, GrowthRules(), 100.0).admitted == 0.0


def test_a_pod_that_was_never_resized_keeps_its_claim_when_it_is() -> None:
    """Without a key nobody proves it, but the API server had counted no change then."""
    pod, resizer = known(asked=2.0)
    resizer.pod.admitted = 2.0
    fresh = PodState(resizer, GrowthRules(), 100.0)
    resizer.pod.admitted = 0.0
    assert (fresh.admitted, pod.admitted) == (2.0, 0.0)
