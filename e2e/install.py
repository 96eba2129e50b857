"""Puts the product on a cluster as docs/install.md says, and takes it off again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from e2e.cluster.imaging import build
from e2e.cluster.places import REPOSITORY
from e2e.harness.kube import Kube

NAMESPACE: Final = "knative-sponge"
PRODUCT: Final = ("queue-proxy", "autoscaler")
APPS: Final = ("echo", "affine", "events", "ocr-server")


def build_images() -> list[Path]:
    """Archives of the product's images and the tests' own; built where something has changed. Raises ClusterError."""
    return [build(name) for name in (*PRODUCT, *APPS)]


def install(kube: Kube, overlay: str) -> None:
    """One command, and the wait until it serves."""
    before = kube.find("deployments", NAMESPACE)
    kube("apply", "-k", REPOSITORY / "manifests" / "overlays" / overlay)
    if before:  # on a cluster that was kept, the image of the same name may be another
        kube("rollout", "restart", "deployment/autoscaler", "-n", NAMESPACE)
    kube("rollout", "status", "deployment/autoscaler", "-n", NAMESPACE, "--timeout=90s", timeout_s=100)
    # A replica is ready as soon as it has a certificate; API servers call it once the leader has written whom to trust.
    kube.until("the webhooks to be trusted", lambda: _trusted(kube), timeout_s=60)


def _trusted(kube: Kube) -> bool:
    kinds = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
    found = [one for kind in kinds for one in kube.find(kind, None) if one["metadata"]["name"] == "knative-sponge"]
    return len(found) == len(kinds) and all(
        hook["clientConfig"].get("caBundle") for one in found for hook in one["webhooks"]
    )


def uninstall(kube: Kube, overlay: str) -> None:
    """The same command backwards."""
    where = REPOSITORY / "manifests" / "overlays" / overlay
    kube("delete", "-k", where, "--ignore-not-found", "--timeout=90s", timeout_s=100)
