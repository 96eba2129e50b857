"""When a revision that is in use may go to zero pods, and when it wakes; pure functions of what is known.

Knative's rule for its own class (docs/knative-contract.md §3.5), on requests instead of concurrency: idle for its stable
window, then behind the activator for the grace period, then no pods. What wakes it is a request that waits in an activator;
so nothing sleeps while the activators cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from knative_sponge.controller.annotations import RETENTION, WINDOW
from knative_sponge.core.quantity import parse_duration_s

PROGRESS_S: Final = 600.0
"""A Deployment's progress deadline where it names none: Kubernetes' default, and Knative's."""
DIAGNOSIS_S: Final = 30.0
"""What Knative has after that deadline to read from the pods what went wrong, before they go."""
RECHECK_S: Final = 10.0
"""A revision whose pods say nothing of requests yet, or one that is idle but unseen, is looked at again after so long."""
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})


@dataclass(frozen=True, slots=True)
class IdleRules:
    """Knative's settings of scale to zero. enabled: whether there is any. Times in seconds.

    window_s: without requests for so long, a revision is idle. grace_s: it has its pods so long after its requests were moved
    to the activator. retention_s: and at least so long after it was called idle.
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

        Knative's webhook checked both; a value that is no duration all the same is passed over.
        """
        return cls(
            enabled=defaults.get("enable-scale-to-zero", "true").strip() in _TRUE,
            window_s=_seconds(60.0, _named(annotations, WINDOW), defaults.get("stable-window")) or 60.0,
            grace_s=_seconds(30.0, defaults.get("scale-to-zero-grace-period")),
            retention_s=_seconds(
                0.0, _named(annotations, RETENTION), defaults.get("scale-to-zero-pod-retention-period")
            ),
        )


class Rest(Enum):
    """Whether a revision shall have pods."""

    AWAKE = "awake"
    UNSEEN = "unseen"
    """Awake only because a request would not be noticed."""
    ASLEEP = "asleep"
    """It shall have none, once its requests have been moved to the activator."""


def rest(
    rules: IdleRules,
    *,
    idle_s: float | None,
    request_waiting: bool,
    visible: bool,
    lost: bool,
    asleep: bool,
    pods: int,
    unborn: bool,
) -> Rest:
    """What a revision does that may have no pods.

    idle_s: since its last request; None is unknown, as while its pods start. request_waiting: a request waits in an activator.
    visible: the activators are seen. lost: they have not been for long. asleep: it was called idle before. pods: asked for
    now. unborn: it never had a pod, and is to start without.
    """
    if request_waiting:
        return Rest.AWAKE
    if asleep and pods == 0:
        # Nobody measures any more how long it has been idle; it was when its pods went.
        return Rest.UNSEEN if lost and not visible else Rest.ASLEEP
    if not unborn and (idle_s is None or idle_s < rules.window_s):
        return Rest.AWAKE
    return Rest.ASLEEP if visible else Rest.UNSEEN


def wait_s(rules: IdleRules, idle_s: float | None) -> float:
    """Seconds after which a revision that is awake may have become idle, or one that is unseen may have had a request."""
    if idle_s is None or idle_s >= rules.window_s:
        return RECHECK_S
    return max(1.0, rules.window_s - idle_s)


def activation_s(deployment: Mapping[str, Any]) -> float:
    """Seconds in which a pod must get ready, from when there shall be one; else the revision is given up. As Knative's own
    class (`pkg/reconciler/autoscaling/kpa/scaler.go`). deployment: the spec of the revision's Deployment."""
    return float(deployment.get("progressDeadlineSeconds", PROGRESS_S)) + DIAGNOSIS_S


def _named(annotations: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((annotations[name] for name in names if name in annotations), None)


def _seconds(default: float, *texts: str | None) -> float:
    """The first that is a duration."""
    for text in texts:
        try:
            return parse_duration_s(text if text is not None else "")
        except ValueError:
            continue
    return default
