"""How many pods a revision shall have; pure, no object is read or written here.

The annotations decide, because pods grow in place. Within the annotations' bounds the count of `hybrid` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from knative_sponge.controller.annotations import INITIAL_SCALE, MAX_SCALE, MIN_SCALE, first_of

_MOST_PODS: Final = 2**31 - 1
"""`replicas` of a Deployment is an int32, and Knative reads these annotations as such."""


class Routing(StrEnum):
    """Does a Route send requests to the revision? It is the Revision's label `serving.knative.dev/routingState`."""

    ACTIVE = "active"
    PENDING = "pending"
    """No Route has named the revision so far."""
    RESERVE = "reserve"
    """No Route names the revision any more."""

    @classmethod
    def of(cls, label: str | None) -> Routing:
        """From the label's value. An absent or unknown value counts as active, which takes no pods away."""
        try:
            return cls(label or "active")
        except ValueError:
            return cls.ACTIVE


@dataclass(frozen=True, slots=True)
class ScaleBounds:
    """How many pods the user asks for.

    least: `min-scale`; 0 means one pod while the revision is in use. most: `max-scale`; 0 is unbounded. initial:
    `initial-scale`; so many pods must have been ready once.
    """

    least: int = 0
    most: int = 0
    initial: int = 1

    @classmethod
    def of(cls, annotations: Mapping[str, str], defaults: Mapping[str, str]) -> ScaleBounds:
        """From a PodAutoscaler's annotations; `defaults` is the data of Knative's ConfigMap `config-autoscaler`.

        Knative's webhook has checked both. A value that is no count all the same is ignored.
        """
        return cls(
            least=_count(first_of(annotations, MIN_SCALE), defaults.get("min-scale"), 0),
            most=_count(first_of(annotations, MAX_SCALE), defaults.get("max-scale"), 0),
            initial=_count(first_of(annotations, INITIAL_SCALE), defaults.get("initial-scale"), 1),
        )

    @property
    def initial_goal(self) -> int:
        """Pods that must be ready before the revision counts as started; at least one."""
        return self._bounded(max(self.least, self.initial))

    @property
    def goal(self) -> int:
        """Pods of a started revision that is in use; at least one."""
        return self._bounded(self.least)

    def within(self, pods: int) -> int:
        """`pods`, moved into the user's bounds; at least one."""
        return self._bounded(max(self.least, pods))

    @property
    def starts_at_zero(self) -> bool:
        """Shall the revision start without a pod? Knative refuses that unless the cluster has `allow-zero-initial-scale`."""
        return self.least == 0 and self.initial == 0

    @property
    def unrouted_goal(self) -> int:
        """Pods of a started revision that no Route ever named: `min-scale` and no more, as with Knative's own class."""
        return self._bounded(self.least) if self.least else 0

    def _bounded(self, pods: int) -> int:
        pods = max(1, pods)
        return min(pods, self.most) if self.most else pods


def desired(
    bounds: ScaleBounds,
    routing: Routing,
    *,
    initialized: bool,
    replicas: int,
    stuck: bool,
    waited: bool = False,
    idle: bool = False,
    wanted: int | None = None,
) -> int:
    """Pods that the revision shall have, from 0.

    initialized: the revision was ready once. replicas: its Deployment's replicas now. stuck: its Deployment reports no progress
    within the deadline. waited: it has been ready for longer than a Route takes to name it. idle: it goes to zero although a
    Route names it (`idle.idle_state`). wanted: pods that its load asks for; None is as few as the user allows.

    A revision in reserve still gets its first start, because its Service waits for it to be ready. If it never gets ready, it
    is given up when its Deployment is stuck, and then stays at zero.
    """
    if routing is Routing.PENDING and initialized and waited:
        return bounds.unrouted_goal
    if routing is not Routing.RESERVE:
        if idle:
            return 0
        return bounds.within(wanted or 1) if initialized else bounds.initial_goal
    if initialized or stuck or replicas == 0:
        return 0
    return bounds.initial_goal


def _count(*texts: str | int | None) -> int:
    for text in texts:
        try:
            number = int(text if text is not None else "")
        except (ValueError, TypeError):
            continue
        if 0 <= number <= _MOST_PODS:
            return number
    raise ValueError("the last default must be a count")
