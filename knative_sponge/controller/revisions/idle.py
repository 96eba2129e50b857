"""When a revision that a Route names may be scaled to zero, and when it gets a pod again; pure, nothing is read or written.

The rule is Knative's for its own class (docs/knative-contract.md §3.5), with requests in place of concurrency. A revision
that had no requests for its stable window is idle. Its requests are then sent to the activator, and after the grace period it
has no pods. A request that waits in an activator brings a pod back. So no revision goes to zero while the activators cannot be
read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from knative_sponge.controller.annotations import RETENTION, WINDOW, first_of
from knative_sponge.core.quantity import parse_duration_s

PROGRESS_S: Final = 600.0
"""Progress deadline of a Deployment that names none: Kubernetes' default, and Knative's."""
DIAGNOSIS_S: Final = 30.0
"""After that deadline the pods stay for so long: Knative reads from them what went wrong."""
RECHECK_S: Final = 10.0
"""A revision is decided anew after so long while its pods say nothing of requests yet, and while it is idle but the activators
cannot be read."""
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})


@dataclass(frozen=True, slots=True)
class IdleRules:
    """Knative's settings of scale to zero. enabled: does the cluster scale to zero? Times in seconds.

    window_s: a revision without requests for so long is idle. grace_s: an idle revision keeps its pods for so long after its
    requests were sent to the activator. retention_s: it keeps them at least for so long after it was called idle.
    """

    enabled: bool = True
    window_s: float = 60.0
    grace_s: float = 30.0
    retention_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.window_s > 0.0 and self.grace_s >= 0.0 and self.retention_s >= 0.0):
            raise ValueError(f"impossible rules of scale to zero: {self}")

    @classmethod
    def of(cls, annotations: Mapping[str, str], defaults: Mapping[str, str]) -> IdleRules:
        """From a PodAutoscaler's annotations; `defaults` is the data of Knative's ConfigMap `config-autoscaler`.

        Knative's webhook has checked both. A value that is no duration all the same is ignored.
        """
        return cls(
            enabled=defaults.get("enable-scale-to-zero", "true").strip() in _TRUE,
            window_s=_seconds(60.0, first_of(annotations, WINDOW), defaults.get("stable-window")) or 60.0,
            grace_s=_seconds(30.0, defaults.get("scale-to-zero-grace-period")),
            retention_s=_seconds(
                0.0, first_of(annotations, RETENTION), defaults.get("scale-to-zero-pod-retention-period")
            ),
        )


class IdleState(Enum):
    """Shall a revision be scaled to zero?"""

    ACTIVE = "active"
    """It has requests, or may have some: it keeps its pods."""
    ACTIVATORS_UNSEEN = "activators-unseen"
    """It is idle, but keeps its pods: the activators cannot be read, so its next request would not be noticed."""
    IDLE = "idle"
    """It goes to zero pods, once its requests are sent to the activator."""


def idle_state(
    rules: IdleRules,
    *,
    idle_s: float | None,
    request_waiting: bool,
    visible: bool,
    lost: bool,
    was_idle: bool,
    pods: int,
    skip_window: bool,
) -> IdleState:
    """The state of a revision that may be scaled to zero.

    idle_s: seconds since its last request; None is unknown, as while its pods start. request_waiting: a request for it waits in
    an activator. visible: the activators can be read. lost: they could not be read for long. was_idle: its status calls it
    idle. pods: its Deployment's replicas. skip_window: it needs no window without requests to be idle, because it has no pod
    that could serve one: it is to start at zero, or none of its pods gets ready.
    """
    if request_waiting:
        return IdleState.ACTIVE
    if was_idle and pods == 0:
        # No pod measures how long it has been idle. It was idle when its pods went.
        return IdleState.ACTIVATORS_UNSEEN if lost and not visible else IdleState.IDLE
    if not skip_window and (idle_s is None or idle_s < rules.window_s):
        return IdleState.ACTIVE
    return IdleState.IDLE if visible else IdleState.ACTIVATORS_UNSEEN


def recheck_s(rules: IdleRules, idle_s: float | None) -> float:
    """Seconds until a revision that is not IDLE is decided anew: by then an active one may have become idle, and one in
    ACTIVATORS_UNSEEN may have had a request."""
    if idle_s is None or idle_s >= rules.window_s:
        return RECHECK_S
    return max(1.0, rules.window_s - idle_s)


def activation_s(deployment: Mapping[str, Any]) -> float:
    """Seconds from when a revision shall have a pod until it is given up because none got ready. Knative's own class has the
    same rule (`pkg/reconciler/autoscaling/kpa/scaler.go`). deployment: the spec of the revision's Deployment."""
    return float(deployment.get("progressDeadlineSeconds", PROGRESS_S)) + DIAGNOSIS_S


def _seconds(default: float, *texts: str | None) -> float:
    """The first text that is a duration, in seconds; without one the default."""
    for text in texts:
        try:
            return parse_duration_s(text if text is not None else "")
        except ValueError:
            continue
    return default
