"""Names that Knative and this product put on objects, and nothing else."""

from __future__ import annotations

from typing import Final

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
