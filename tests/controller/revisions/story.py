"""One revision over time, with a clock in the test's hand."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

from knative_sponge.controller.kube.resource import Object
from knative_sponge.controller.revisions.decision import Action, decide
from knative_sponge.controller.revisions.serverless_service import Mode
from tests.controller.revision_kit import condition, deployment
from tests.controller.revisions.decision_kit import NOW, carried_out, snapshot, started


class Story:
    """One revision that is ready, and what is decided for it as time passes. Knative's part is played at once.

    seen: the next snapshot; `idle_s` and the like are changed by the test.
    """

    def __init__(self, autoscaler: Object | None = None, **facts: Any) -> None:
        self.now = self.proxied = NOW + timedelta(minutes=10)
        self.seen = snapshot(autoscaler=autoscaler or started(), deployment=deployment(ready=1))
        self.tell(**({"idle_s": 0.0, "activators_visible": True, "activators_lost": False} | facts))
        self.step()

    def tell(self, **facts: Any) -> None:
        self.seen = dataclasses.replace(self.seen, **facts)

    def step(self, wait_s: float = 0.0, **facts: Any) -> tuple[Action, ...]:
        """After so long, this is decided; it is carried out."""
        self.now += timedelta(seconds=wait_s)
        self.tell(**facts)
        actions = decide(self.seen, self.now)
        mode = self.mode
        self.seen = carried_out(self.seen, actions)
        self.moved(self.proxied if self.mode is mode else self.now)
        return actions

    def moved(self, at: datetime) -> None:
        """Knative pointed the public Service to where it points now."""
        self.proxied = at
        assert self.seen.service is not None
        for entry in self.seen.service["status"]["conditions"]:
            entry["lastTransitionTime"] = at.isoformat()

    @property
    def mode(self) -> Mode:
        assert self.seen.service is not None
        return Mode(self.seen.service["spec"]["mode"])

    @property
    def pods(self) -> int:
        assert self.seen.deployment is not None
        return int(self.seen.deployment["spec"]["replicas"])

    @property
    def active(self) -> Object:
        return condition(self.seen.autoscaler["status"], "Active")

    def asleep(self) -> Story:
        """With its pods gone."""
        self.step(60.0, idle_s=60.0)
        self.step(30.0, idle_s=90.0)
        assert self.pods == 0
        self.step(idle_s=None)
        return self
