"""Knative's own YAML, as its modules carry it, made to fit this cluster: images, domain, ingress. Applies nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster.settings import CPU_REQUEST, config_maps

_OBJECTS = Path(__file__).parent / "objects"
_KO = re.compile(r"ko://knative\.dev/(serving|eventing)/cmd/(?:[\w-]+/)*([\w-]+)")
_SETTINGS: Final = config_maps("traefik.ingress.networking.knative.dev")
_SERVING: Final = (
    "serving/core/200-roles", "serving/core/200-serviceaccount.yaml", "serving/core/configmaps",
    "networking/config-network.yaml", "serving/core/webhooks", "serving/core/deployments",
)  # fmt: skip
_EVENTING: Final = (
    "core/200-eventing-serviceaccount.yaml", "core/200-webhook-serviceaccount.yaml", "core/roles", "core/configmaps",
    "core/webhooks", "core/deployments/controller.yaml", "core/deployments/webhook.yaml",
    "channels/in-memory-channel", "brokers/mt-channel-broker",
)  # fmt: skip
_CRDS: Final = (
    "serving/core/300-resources", "networking/certificate.yaml", "networking/domain-claim.yaml",
    "networking/ingress.yaml", "networking/serverlessservice.yaml", "caching/image.yaml",
)  # fmt: skip
_UNWANTED: Final = "hpa.yaml"
"""Scalers of Knative's own pods, which want a metrics server."""

_IMAGES_OF_EVENTING: Final = {
    "eventing-integrations-images": (
        *(f"{cloud}-{end}" for cloud in ("aws-s3", "aws-sqs") for end in ("source", "sink")),
        *("aws-ddb-streams-source", "aws-sns-sink", "timer-source", "log-sink"),
    ),
    "eventing-transformations-images": ("transform-jsonata",),
}
"""ConfigMaps that its release adds and its controller insists on; no source or sink of them is used here."""

Object = dict[str, Any]


def first(serving: Path, eventing: Path) -> list[Object]:
    """Namespaces and definitions: what must be established before anything else is applied."""
    config = serving / "config"
    paths = [config / "serving/core/100-namespace.yaml", eventing / "config/eventing/core/100-namespace.yaml"]
    paths += [config / name for name in _CRDS]
    paths += [
        eventing / "config/eventing" / name for name in ("core/resources", "channels/in-memory-channel/resources")
    ]
    return list(_objects(paths))


def second(serving: Path, eventing: Path) -> list[Object]:
    """Everything else of Serving, Eventing, the ingress and DNS. Settings come before the webhooks that check them."""
    paths = [_OBJECTS / "coredns.yaml", _OBJECTS / "traefik.yaml"]
    paths += [serving / "config" / name for name in _SERVING]
    paths += [eventing / "config/eventing" / name for name in _EVENTING]
    extra = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "knative-eventing"},
            "data": dict.fromkeys(keys, "unused"),
        }
        for name, keys in _IMAGES_OF_EVENTING.items()
    ]
    found = [one for one in _objects(paths) if one["kind"] not in ("CustomResourceDefinition", "Namespace")]
    namespaces = [one for one in _objects([_OBJECTS / "traefik.yaml"]) if one["kind"] == "Namespace"]
    return [*namespaces, *extra, *found]


def image(module: str, program: str) -> str:
    """The tag under which a program's image is known to the cluster."""
    return f"dev.local/{module}-{program}:dev"


def _objects(paths: Iterable[Path]) -> Iterator[Object]:
    for path in paths:
        files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
        for file in files:
            if not file.name.endswith(_UNWANTED):
                text = _KO.sub(lambda found: image(found[1], found[2]), file.read_text())
                yield from (_fitted(one) for one in yaml.safe_load_all(text) if one)


def _fitted(one: Object) -> Object:
    if one["kind"] == "ConfigMap" and one["metadata"].get("namespace") == "knative-serving":
        one.setdefault("data", {}).update(_SETTINGS.get(one["metadata"]["name"], {}))
    if one["kind"] == "Deployment":
        for container in one["spec"]["template"]["spec"]["containers"]:
            container.setdefault("resources", {}).setdefault("requests", {})["cpu"] = CPU_REQUEST
    return one
