"""Pod counts of revisions whose load decides about pods too."""

from __future__ import annotations

import dataclasses

import pytest

from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions.decision import RequeueAfter, SetReplicas, decide
from knative_sponge.controller.revisions.serverless_service import Mode
from tests.controller.revision_kit import DEPLOYMENT, condition, deployment
from tests.controller.revisions.decision_kit import started, status_of
from tests.controller.revisions.story import Story

HYBRID = {"knative-sponge.dev/scaling": "hybrid"}


def hybrid(**annotations: str) -> Object:
    known = started(**annotations)
    known["metadata"]["annotations"] |= HYBRID
    return known


@pytest.mark.parametrize(
    ("annotations", "wanted", "pods"),
    [
        pytest.param({}, 4, 4, id="what the load asks for"),
        pytest.param({"max_scale": "3"}, 4, 3, id="within max-scale"),
        pytest.param({"min_scale": "2"}, 1, 2, id="within min-scale"),
        pytest.param({}, 0, 1, id="never none"),
    ],
)
def test_a_hybrid_revision_has_the_pods_that_its_load_asks_for(
    annotations: dict[str, str], wanted: int, pods: int
) -> None:
    story = Story(hybrid(**annotations), pods_wanted=wanted)
    assert (story.pods, story.mode) == (pods, Mode.PROXY)
    story.step()
    assert story.active == {"status": "True"}
    assert all(isinstance(write, RequeueAfter) for write in story.step())


def test_a_hybrid_revision_that_grows_stays_active() -> None:
    story = Story(hybrid(), pods_wanted=2)
    three = dataclasses.replace(story.seen, pods_wanted=3)
    assert SetReplicas(DEPLOYMENT, 3) in decide(three, story.now)
    assert condition(status_of(decide(three, story.now)), "Active") == {"status": "True"}


def test_pods_stay_while_nobody_knows_the_load() -> None:
    story = Story(hybrid(), pods_wanted=4)
    story.step(pods_wanted=None)
    assert story.pods == 4
    assert Story(hybrid(), pods_wanted=None, deployment=deployment(replicas=0)).pods == 1


def test_a_hybrid_revision_of_at_most_one_pod_needs_no_activator() -> None:
    assert Story(hybrid(max_scale="1")).mode is Mode.SERVE


def test_a_hybrid_revision_goes_to_zero_from_any_count() -> None:
    story = Story(hybrid(), pods_wanted=3)
    story.step(60.0, idle_s=60.0)
    story.step(30.0, idle_s=90.0)
    assert story.pods == 0
    story.step(1.0, idle_s=None, pods_wanted=None)
    assert story.step(1.0) == ()
