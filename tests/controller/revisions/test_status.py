"""Whether a revision has started, as its status tells it: enough pods ready for the first time."""

from __future__ import annotations

import pytest

from knative_sponge.controller.revisions.status import StatusFacts, conditions


@pytest.mark.parametrize(
    ("goal", "threshold", "ready", "started"),
    [
        (1, 1, 1, True),
        (1, 1, 0, False),
        (1, 1, None, False),
        (3, 3, 2, False),
        (3, 3, 4, True),
        (0, 0, 0, True),
        (0, 0, None, True),
        (0, 1, 1, False),
    ],
)
def test_a_revision_has_started_once_as_many_pods_are_ready_as_it_begins_with(
    goal: int, threshold: int, ready: int | None, started: bool
) -> None:
    facts = StatusFacts(
        generation=1,
        goal=goal,
        threshold=threshold,
        ready=ready,
        service="s",
        private="p",
        service_ready=True,
        initialized=False,
        not_owned=False,
    )
    (found,) = (each for each in conditions(facts, "r") if each.type == "ScaleTargetInitialized")
    assert (found.status == "True") == started
