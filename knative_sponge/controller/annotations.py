"""Annotations and labels of Knative and of this product: their names, the settings they make, and all their faults. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from knative_sponge.controller.kube.resource import Object
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import ANNOTATION_PREFIX, ServingSettings

CLASS: Final = "sponge.knative-sponge.dev"
"""Our PodAutoscaler class."""

CLASS_ANNOTATION: Final = "autoscaling.knative.dev/class"
METRIC_ANNOTATION: Final = "autoscaling.knative.dev/metric"
MIN_SCALE: Final = ("autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/minScale")
"""Where an object has both names of one annotation, the first of them counts, as in Knative (`kmap.KeyPriority`)."""
MAX_SCALE: Final = ("autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/maxScale")
INITIAL_SCALE: Final = ("autoscaling.knative.dev/initial-scale", "autoscaling.knative.dev/initialScale")
WINDOW: Final = ("autoscaling.knative.dev/window",)
RETENTION: Final = (
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period",
    "autoscaling.knative.dev/scaleToZeroPodRetentionPeriod",
)

REVISION_LABEL: Final = "serving.knative.dev/revision"
SERVICE_LABEL: Final = "serving.knative.dev/service"
OWNER_UID_LABEL: Final = "serving.knative.dev/configurationUID"
"""Of the Configuration that a revision comes from. Knative puts it on every pod of a revision. A uid is random, and told only
to who may read the object."""
ROUTING_STATE_LABEL: Final = "serving.knative.dev/routingState"

MOST_FAULTS: Final = 20
"""Faults that one object is told at once."""

SLO_ANNOTATION: Final = "knative-sponge.dev/slo"
SCALING_ANNOTATION: Final = "knative-sponge.dev/scaling"


def has_our_class(autoscaler: Object) -> bool:
    """Is this PodAutoscaler reconciled here? It has our class and is not being deleted."""
    metadata = autoscaler["metadata"]
    annotations = metadata.get("annotations") or {}
    return annotations.get(CLASS_ANNOTATION) == CLASS and "deletionTimestamp" not in metadata


def sponge_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """The annotations under this product's prefix."""
    return {key: value for key, value in annotations.items() if key.startswith(ANNOTATION_PREFIX)}


def first_of(annotations: Mapping[str, str], names: Iterable[str]) -> str | None:
    """The value of the first of these names that is there; None where none is."""
    return next((annotations[name] for name in names if name in annotations), None)


def read_settings(annotations: Mapping[str, str]) -> ServingSettings:
    """The settings as a proxy would accept them. Raises SettingError that names the annotation."""
    for key, value in sponge_annotations(annotations).items():
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
    """The reasons why `read_settings` would refuse them, the first `MOST_FAULTS`; values wrong by themselves come before
    contradictions."""
    checked = sponge_annotations(annotations)
    alone = (fault for key, value in checked.items() if (fault := _fault_alone(key, value)) is not None)
    found = list(islice(alone, MOST_FAULTS))
    wrong = {fault.name for fault in found}
    # A maximum is not compared with the default of a minimum that could not be read.
    rest = {key: checked[key] for key in checked if not {key, key.replace("/max-", "/min-")} & wrong}
    while rest and len(found) < MOST_FAULTS:
        try:
            read_settings(rest)
            break
        except SettingError as error:
            found.append(error)
            del rest[error.name]
    return found


def _fault_alone(key: str, value: str) -> SettingError | None:
    """What is wrong with one annotation whatever the others say."""
    # The other annotations may lower the minimum. So a maximum is read together with a minimum of the same value.
    low = key.replace("/max-", "/min-")
    pair = {key, low} if low.removeprefix(ANNOTATION_PREFIX) in ServingSettings.names() else {key}
    try:
        read_settings(dict.fromkeys(sorted(pair), value))
    except SettingError as error:
        return SettingError(key, value, error.allowed)
    return None
