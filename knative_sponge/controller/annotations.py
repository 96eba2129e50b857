"""Annotations and labels that Knative and this product put on objects: their names, what a revision's owner chose by them, and
everything that is wrong with it at once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from knative_sponge.controller.kube.resource import Object
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import ANNOTATION_PREFIX, ServingSettings

CLASS: Final = "sponge.knative-sponge.dev"
"""Our PodAutoscaler class."""

CLASS_ANNOTATION: Final = "autoscaling.knative.dev/class"
METRIC_ANNOTATION: Final = "autoscaling.knative.dev/metric"
MIN_SCALE: Final = ("autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/minScale")
"""Of two names for one thing the first that is there counts, as in Knative (`kmap.KeyPriority`)."""
MAX_SCALE: Final = ("autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/maxScale")
INITIAL_SCALE: Final = ("autoscaling.knative.dev/initial-scale", "autoscaling.knative.dev/initialScale")
WINDOW: Final = ("autoscaling.knative.dev/window",)
RETENTION: Final = (
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period",
    "autoscaling.knative.dev/scaleToZeroPodRetentionPeriod",
)

REVISION_LABEL: Final = "serving.knative.dev/revision"
SERVICE_LABEL: Final = "serving.knative.dev/service"
CONFIGURATION_LABEL: Final = "serving.knative.dev/configuration"
ROUTING_STATE_LABEL: Final = "serving.knative.dev/routingState"

SLO_ANNOTATION: Final = "knative-sponge.dev/slo"
SCALING_ANNOTATION: Final = "knative-sponge.dev/scaling"


def ours(autoscaler: Object) -> bool:
    """Is this PodAutoscaler of our class and not being deleted?"""
    metadata = autoscaler["metadata"]
    annotations = metadata.get("annotations") or {}
    return annotations.get(CLASS_ANNOTATION) == CLASS and "deletionTimestamp" not in metadata


def of_sponge(annotations: Mapping[str, str]) -> dict[str, str]:
    """Those under our prefix."""
    return {key: value for key, value in annotations.items() if key.startswith(ANNOTATION_PREFIX)}


def read_settings(annotations: Mapping[str, str]) -> ServingSettings:
    """The settings that a proxy would accept. Raises SettingError that names the annotation."""
    for key, value in of_sponge(annotations).items():
        # A Service's template is not checked before webhooks see it: YAML's bare 500 arrives as a number.
        if not isinstance(value, str):
            raise SettingError(key, value, "a text; put the value in quotes")
    try:
        return ServingSettings.from_annotations(annotations)
    except SettingError as error:
        if error.name.startswith(ANNOTATION_PREFIX):
            raise
        raise SettingError(ANNOTATION_PREFIX + error.name, error.value, error.allowed) from error


def faults(annotations: Mapping[str, str]) -> list[SettingError]:
    """Every reason why `read_settings` would refuse them; values that contradict each other come after single ones."""
    ours = of_sponge(annotations)
    found = [fault for key, value in ours.items() if (fault := _fault_alone(key, value)) is not None]
    wrong = {fault.name for fault in found}
    # A maximum is not held against the default of a minimum that could not be read.
    rest = {key: ours[key] for key in ours if not {key, key.replace("/max-", "/min-")} & wrong}
    while rest:
        try:
            read_settings(rest)
            break
        except SettingError as error:
            found.append(error)
            del rest[error.name]
    return found


def _fault_alone(key: str, value: str) -> SettingError | None:
    """What is wrong with one annotation whatever the others say."""
    # A maximum below the default minimum may be meant with a smaller minimum: it is read with itself as minimum.
    low = key.replace("/max-", "/min-")
    pair = {key, low} if low.removeprefix(ANNOTATION_PREFIX) in ServingSettings.names() else {key}
    try:
        read_settings(dict.fromkeys(sorted(pair), value))
    except SettingError as error:
        return SettingError(key, value, error.allowed)
    return None
