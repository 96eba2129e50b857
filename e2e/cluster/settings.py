"""How Knative is set on every cluster that tests run on. Says nothing of how the settings get there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DOMAIN: Final = "example.test"
CPU_REQUEST: Final = "10m"
"""Of everything that is not under test: a node of a few cores must hold it all."""


def config_maps(ingress_class: str) -> Mapping[str, Mapping[str, str]]:
    """What is added to the ConfigMaps of the namespace knative-serving: name → key → value.

    ingress_class: which controller answers Knative's Ingress objects.
    """
    return {
        "config-network": {"ingress-class": ingress_class},
        "config-domain": {DOMAIN: ""},
        # The tests' images are in no registry that could be asked for their digests.
        "config-deployment": {"registries-skipping-tag-resolving": "dev.local,kind.local,ko.local"},
        # Tests wait for zero; 30 s by default.
        "config-autoscaler": {"scale-to-zero-grace-period": "6s"},
        # Through the activators' metrics the autoscaler learns of requests for revisions without pods.
        "config-observability": {"metrics-protocol": "prometheus"},
    }
