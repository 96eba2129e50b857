"""Gives the pods of one node their targets, so that they never take more cores than there are. Decides no division.

Shrinks are patched first. A growth is patched as soon as all of it fits beside what the other pods have asked for. Where no
shrink is about to be patched, a growth takes as much as fits.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Final

from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.quarantine import Failures, Quarantine
from knative_sponge.controller.sizing.claims import bounds
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.controller.sizing.quota_refusals import QuotaRefusals
from knative_sponge.core.allocation.divide import Claim, Division
from knative_sponge.core.allocation.growth import GrowthRules, grown, shrunk
from knative_sponge.core.quantity import format_cores

_LEAST_STEP: Final = 0.02
"""Cores below which a part of a growth is not worth a patch."""
_GRAIN: Final = 0.0005
"""Half a millicore: sizes that differ by less are the same."""
_LEAST_MISSES: Final = 0.005
"""Rows per second below which misses do not count."""
_SOON_S: Final = 0.1
"""A growth waits for a shrink that may be patched within this time."""
_WORTH_IT: Final = 0.5
"""Where a shrink may be patched within the spacing of patches, a growth waits for it rather than take less than this share."""


def actuate(
    claims: Sequence[Claim],
    capacity: float,
    division: Division,
    pods: Mapping[Key, PodState],
    now: float,
    rules: GrowthRules,
    quotas: QuotaRefusals,
    *,
    fair: Mapping[str, float] | None = None,
    steps: Quarantine | None = None,
) -> None:
    """Give every pod of `claims` that is still among `pods` its target. capacity: cores of the node for its managed pods.
    fair: cores of each tenant's fair share, where there are several. steps: where pods that fail are reported."""
    steps = steps or Failures().of("claims")
    present = [
        (pod.resizer, each, division.sizes[each.key])
        for each in claims
        if isinstance(each.key, tuple) and (pod := pods.get(each.key)) is not None
    ]
    lows: dict[Hashable, float] = {}
    for resizer, each, _ in present:
        least = steps.run(resizer.pod.key, partial(bounds, resizer.pod, resizer.machine, capacity, now))
        lows[each.key] = each.low if least is None else least[0]
    above_least = capacity - _least(claims, lows, fair or {})

    def set_target(resizer: PodResizer, each: Claim, size: float, need: float) -> None:
        demand = pods[resizer.pod.key].demand
        since_s = now if demand is None else demand.since_s
        if size < resizer.machine.asked:  # until now the pod held its size
            since_s = max(since_s, min(now, resizer.sized_s + rules.hold_s))
        reach = max(size, min(each.high, lows[each.key] + above_least))
        steps.run(resizer.pod.key, lambda: resizer.set_target(size, need, reach, _why(each, size), since_s))

    spare = 0.0 if division.short else capacity - sum(size for _, _, size in present)
    room = capacity - sum(resizer.machine.asked for resizer, _, _ in present)
    growing = [(resizer, each, size) for resizer, each, size in present if size > resizer.machine.asked]
    unmet = sum(size - resizer.machine.asked for resizer, _, size in growing) - room
    shrinking = []
    margins = spare
    if unmet > 0.0:  # cores that a growth waits for are no margin for others
        margins = min(spare, sum(_gives(resizer, size, now) for resizer, _, size in present) - unmet)
    for resizer, each, size in present:
        asked = resizer.machine.asked
        if size <= asked:
            given = shrunk(asked, size, min(margins, resizer.pod.head_room), rules) if size < asked else size
            margins -= given - size
            spare -= given - size
            set_target(resizer, each, given, given)
            if given < asked - _GRAIN:
                shrinking.append(resizer.machine)
    # No growth waits for a shrink that cannot be patched for long, as with a webhook that fails or a kubelet that errs.
    soon = any(machine.patches_by(now + _SOON_S) for machine in shrinking)
    later = any(machine.patches_by(now + machine.rules.min_spacing_s) for machine in shrinking)
    filled = _filled(present)
    growing.sort(key=lambda found: (filled[found[1].tenant], -found[1].weight, found[2] - found[0].machine.asked))
    for resizer, each, size in growing:
        asked = resizer.machine.asked
        if size - asked > room + _GRAIN:
            # The node is divided again when a shrink was accepted. Until then the pod keeps what it has asked for.
            waits = soon or room < _LEAST_STEP or (later and room < _WORTH_IT * (size - asked))
            given = asked if waits else round(asked + room - _GRAIN, 3)
        elif quotas.tight(resizer.pod.key[0], now):
            given = size
        else:
            late = _misses(each, asked) >= _LEAST_MISSES
            given = grown(asked, size, each.high, min(spare, room - (size - asked)), rules, late=late)
            given = min(given, size + resizer.pod.head_room)
            spare -= given - size
        room -= given - asked
        set_target(resizer, each, given, size)


def _least(claims: Sequence[Claim], lows: Mapping[Hashable, float], fair: Mapping[str, float]) -> float:
    """The cores that the pods keep whatever happens. No tenant's least counts for more than his fair share."""
    least: dict[str, float] = {}
    for each in claims:
        least[each.tenant] = least.get(each.tenant, 0.0) + lows.get(each.key, 0.0)
    return sum(min(cores, fair.get(tenant, cores)) for tenant, cores in least.items())


def _filled(present: Sequence[tuple[PodResizer, Claim, float]]) -> dict[str, float]:
    """How much of what it is given each tenant has already. Who has less of it grows first, whatever his priorities."""
    asked: dict[str, float] = {}
    given: dict[str, float] = {}
    for resizer, each, size in present:
        asked[each.tenant] = asked.get(each.tenant, 0.0) + resizer.machine.asked
        given[each.tenant] = given.get(each.tenant, 0.0) + size
    return {tenant: cores / given[tenant] if given[tenant] else 1.0 for tenant, cores in asked.items()}


def _gives(resizer: PodResizer, size: float, now: float) -> float:
    """Cores that a shrink to `size` frees, if it may be patched within the spacing of patches."""
    machine = resizer.machine
    return max(0.0, machine.asked - size) if machine.patches_by(now + machine.rules.min_spacing_s) else 0.0


def _why(each: Claim, size: float) -> str:
    """Why a pod's size changes, for people."""
    if size > each.cores:
        misses = _misses(each, each.cores)
        return f"{misses:.3g} rows/s would miss" if misses >= _LEAST_MISSES else "room for what may come"
    if size < each.want:
        return f"the node is short: {format_cores(each.want)} wanted"
    return "enough for what arrives"


def _misses(each: Claim, cores: float) -> float:
    for size, misses in reversed(each.curve):
        if size <= cores + _GRAIN:
            return misses
    return each.curve[0][1] if each.curve else 0.0
