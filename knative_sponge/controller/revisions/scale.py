"""How many pods a revision shall have; pure functions of what is known, no object is read or written here.

The count follows the annotations, because the product grows pods in place; within them the slow loop (`hybrid`) decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from knative_sponge.controller.annotations import INITIAL_SCALE, MAX_SCALE, MIN_SCALE


class Routing(StrEnum):
    """Does any Route send requests to the revision? The label `serving.knative.dev/routingState` of the Revision."""

    ACTIVE = "active"
    PENDING = "pending"
    """No Route has named it so far."""
    RESERVE = "reserve"
    """No Route names it."""

    @classmethod
    def of(cls, label: str | None) -> Routing:
        """From the label's value; what is absent or not understood counts as active, which never takes pods away."""
        try:
            return cls(label or "active")
        except ValueError:
            return cls.ACTIVE


@dataclass(frozen=True, slots=True)
class ScaleBounds:
    """How many pods the user asks for.

    least: 0 is the class's own least, one pod. most: 0 is unbounded. initial: pods that must have been ready once.
    """

    least: int = 0
    most: int = 0
    initial: int = 1

    @classmethod
    def of(cls, annotations: Mapping[str, str], defaults: Mapping[str, str]) -> ScaleBounds:
        """From a PodAutoscaler's annotations; `defaults` is the data of Knative's ConfigMap `config-autoscaler`.

        Knative's webhook checked both; a value that is no count all the same is passed over.
        """
        return cls(
            least=_count(_first(annotations, MIN_SCALE), defaults.get("min-scale"), 0),
            most=_count(_first(annotations, MAX_SCALE), defaults.get("max-scale"), 0),
            initial=_count(_first(annotations, INITIAL_SCALE), defaults.get("initial-scale"), 1),
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
        """The count that is asked for, within what the user allows; at least one."""
        return self._bounded(max(self.least, pods))

    @property
    def unborn(self) -> bool:
        """Shall the revision start without a pod? Knative lets nobody ask for that unless the cluster allows it."""
        return self.least == 0 and self.initial == 0

    @property
    def unrouted_goal(self) -> int:
        """Pods of a started revision that no Route ever named: as with Knative's own class only those asked for."""
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
    asleep: bool = False,
    wanted: int | None = None,
) -> int:
    """Pods that the revision shall have, from 0.

    initialized: it was ready once. replicas: pods its Deployment asks for now. stuck: its Deployment gave up on progress.
    waited: it was ready for longer than a Route takes to name it. asleep: it is in use, but idle (`idle.rest`). wanted: pods
    that its load asks for; None is as few as the user allows.

    A revision that nobody routes to still gets its first start, because its Service waits to see it ready; one that
    never comes up is given up when the Deployment gives up, and then stays at zero.
    """
    if routing is Routing.PENDING and initialized and waited:
        return bounds.unrouted_goal
    if routing is not Routing.RESERVE:
        if asleep:
            return 0
        return bounds.within(wanted or 1) if initialized else bounds.initial_goal
    if initialized or stuck or replicas == 0:
        return 0
    return bounds.initial_goal


def _first(annotations: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((annotations[name] for name in names if name in annotations), None)


def _count(*texts: str | int | None) -> int:
    for text in texts:
        try:
            number = int(text if text is not None else "")
        except ValueError:
            continue
        if number >= 0:
            return number
    raise ValueError("the last default must be a count")
