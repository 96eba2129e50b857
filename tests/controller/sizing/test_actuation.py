"""Who of a node gives and who gets at once. Real resizes, without a shell around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from knative_sponge.controller.sizing.actuation import actuate
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.controller.sizing.quota_refusals import QuotaRefusals
from knative_sponge.core.allocation.divide import Claim, DivideRules, Problem
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.resizing.events import PatchFailed, Target, Tick
from knative_sponge.core.resizing.machine import PodResize
from tests.controller.sized_pod import running, sized, viewed

NOW = 1000.0


class Given:
    """Stands in for a PodResizer: remembers its target."""

    def __init__(self, name: str, cores: float, *, stuck: bool) -> None:
        pod = running()
        pod["metadata"] |= {"name": name, "uid": f"u-{name}"}
        sized(pod, cores)
        self.pod = viewed(pod)
        self.machine = PodResize(0.0)
        self.machine.handle(self.pod.seen(), 0.0)
        self.sized_s = -1e9
        self.size = cores
        if stuck:
            self._fail_until(NOW)

    def _fail_until(self, end_s: float) -> None:
        """Every patch is refused by some webhook that fails, and the next one is far away."""
        cores = 0.9 * self.machine.asked
        now = 2.0
        self.machine.handle(Target(cores, cores), now)
        while now < end_s - 0.5:
            self.machine.handle(PatchFailed(cores, "busy", "no answer"), now)
            now = self.machine._free_s
            self.machine.handle(Tick(), now)
        self.machine.handle(PatchFailed(cores, "busy", "no answer"), end_s - 0.5)
        assert not self.machine.patches_by(end_s + 5.0)

    def set_target(self, size: float, *_: object) -> None:
        self.size = size


def round_of(
    sizes: Mapping[str, float],
    wants: Mapping[str, float],
    capacity: float,
    *,
    stuck: str = "",
    slow: str = "",
    head_room: float = math.inf,
) -> dict[str, float]:
    """One division, carried out. stuck: the pod whose patches fail. slow: the one that was patched half a second ago.
    head_room: what each pod may be given ahead of need."""
    resizers: dict[Any, Any] = {}
    for name, cores in sizes.items():
        resizer = Given(name, cores, stuck=name == stuck)
        resizer.pod = replace(resizer.pod, head_room=head_room)
        if name == slow:
            resizer.machine.next_allowed_s = NOW + 0.5
        resizers[resizer.pod.key] = resizer
    claims = [Claim(key, wants[key[1]], (), resizer.machine.asked, 0.1, 9.0) for key, resizer in resizers.items()]
    pods = {key: PodState(resizer, GrowthRules(), NOW) for key, resizer in resizers.items()}
    division = Problem(claims, capacity, DivideRules(tolerance=0.05)).solve()
    actuate(claims, capacity, division, pods, NOW, GrowthRules(), QuotaRefusals())
    return {name: sizes[name] if name == stuck else resizers["default", name].size for name in sizes}


def test_a_pod_that_stays_where_it_is_for_its_margin_is_no_shrink_to_wait_for() -> None:
    """`surge` needs 2 more and 1.2 are free; `slow` gives more in half a second, which is worth no waiting."""
    sizes = {"steady": 4.0, "surge": 1.0, "slow": 3.0}
    found = round_of(sizes, {"steady": 3.5, "surge": 3.0, "slow": 1.0}, 9.2, slow="slow")
    assert found["steady"] == 4.0
    assert found["slow"] < 3.0
    assert found["surge"] == pytest.approx(2.2, abs=0.01)


def test_what_a_growth_waits_for_is_no_margin_for_others() -> None:
    sizes = {"steady": 4.0, "surge": 1.0, "stuck": 4.0}
    for _ in range(3):
        sizes = round_of(sizes, {"steady": 3.5, "surge": 3.0, "stuck": 1.0}, 9.5, stuck="stuck")
    assert sizes["steady"] == pytest.approx(3.5)
    assert sizes["surge"] == pytest.approx(2.0, abs=0.01)


def test_a_pod_keeps_a_margin_where_everybody_has_what_he_needs() -> None:
    assert round_of({"a": 4.0, "b": 1.0}, {"a": 3.5, "b": 1.0}, 9.5) == {"a": 4.0, "b": 1.0}


def test_nobody_grows_ahead_of_need_into_what_another_needs() -> None:
    """Both need half a core more; 0.2 are over, and one that took more of them would leave the other short."""
    given = round_of({"one": 0.5, "other": 0.5}, {"one": 1.0, "other": 1.0}, 2.2)
    assert min(given.values()) >= 1.0
    assert sum(given.values()) <= 2.2


@pytest.mark.parametrize(("head_room", "grown", "shrunk"), [(math.inf, 1.5, 2.0), (0.2, 1.2, 1.2), (0.0, 1.0, 1.0)])
def test_nobody_is_given_more_ahead_of_need_than_an_administrator_lets_him(
    head_room: float, grown: float, shrunk: float
) -> None:
    assert round_of({"a": 0.5}, {"a": 1.0}, 9.0, head_room=head_room)["a"] == pytest.approx(grown)
    assert round_of({"a": 4.0}, {"a": 1.0}, 9.0, head_room=head_room)["a"] == pytest.approx(shrunk)


def test_whose_namespace_has_least_of_its_share_grows_first_whatever_its_priority() -> None:
    """Both need a core more, and there is one until others have shrunk."""
    resizers: dict[Any, Any] = {}
    for name, cores in (("greedy", 4.0), ("modest", 1.0)):
        resizers["default", name] = Given(name, cores, stuck=False)
    claims = [
        Claim(("default", "greedy"), 5.0, (), 4.0, 0.1, 9.0, 16.0, tenant="greedy"),
        Claim(("default", "modest"), 2.0, (), 1.0, 0.1, 9.0, 1.0, tenant="modest"),
    ]
    pods = {key: PodState(resizer, GrowthRules(), NOW) for key, resizer in resizers.items()}
    division = Problem(claims, 7.0, DivideRules()).solve()
    actuate(claims, 6.0, division, pods, NOW, GrowthRules(), QuotaRefusals())
    assert resizers["default", "modest"].size >= 2.0
    assert resizers["default", "greedy"].size == 4.0
