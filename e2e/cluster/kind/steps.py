"""The way from nothing to a kind cluster with Knative, as data: a person can type what the provider runs. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.places import REPOSITORY
from e2e.cluster.provider import ClusterError, Component
from e2e.cluster.settings import CPU_REQUEST, config_maps

NAME: Final = "knative-sponge-e2e"
NODE: Final = f"{NAME}-control-plane"
"""The container that is the node."""
_MANIFEST: Final = "/etc/kubernetes/manifests/kube-apiserver.yaml"
_AWAY: Final = "/etc/kubernetes/kube-apiserver.yaml"
FAULTS: Final[Mapping[Component, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "kubelet": (("systemctl", "kill", "--signal=KILL", "kubelet"), ("systemctl", "start", "kubelet")),
    "kube-apiserver": (("mv", _MANIFEST, _AWAY), ("mv", _AWAY, _MANIFEST)),
}
"""How a component is taken away and brought back, inside the node."""

PORT: Final = 31080
"""Of the node and, by cluster.yaml, of this machine."""

_CONFIG: Final = (Path(__file__).parent / "cluster.yaml").relative_to(REPOSITORY)
_GITHUB: Final = "https://github.com"
_SERVING: Final = f"{_GITHUB}/knative/serving/releases/download/knative-v1.21.1"
_EVENTING: Final = f"{_GITHUB}/knative/eventing/releases/download/knative-v1.21.1"
_KOURIER: Final = f"{_GITHUB}/knative-extensions/net-kourier/releases/download/knative-v1.21.0"

FILES: Final = {
    "serving-crds.yaml": _SERVING,
    "serving-core.yaml": _SERVING,
    "kourier.yaml": _KOURIER,
    "eventing-crds.yaml": _EVENTING,
    "eventing-core.yaml": _EVENTING,
    "in-memory-channel.yaml": _EVENTING,
    "mt-channel-broker.yaml": _EVENTING,
}
"""Knative's release files and where they are published."""

_CREATE_S: Final = 600.0
_APPLY_S: Final = 120.0
_READY_S: Final = 300
"""Of one Deployment: its images come from the internet the first time."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command: what it does, its words, and the longest that it may take. Run in the repository, KUBECONFIG set."""

    title: str
    argv: tuple[str, ...]
    timeout_s: float


def steps(files: Path | None = None) -> list[Step]:
    """All of them, in order. `files` is a directory with Knative's release files; they are fetched from GitHub without it.

    Raises ClusterError when the directory lacks one.
    """
    places = _places(files)
    return [
        Step(
            "a cluster of one node",
            ("kind", "create", "cluster", f"--name={NAME}", f"--config={_CONFIG}", "--wait=120s"),
            _CREATE_S,
        ),
        *_definitions("Serving", places["serving-crds.yaml"]),
        _apply("Serving and its ingress", places["serving-core.yaml"], places["kourier.yaml"]),
        _small("Serving", "knative-serving"),
        _small("the ingress", "kourier-system"),
        _patch(
            "the ingress on the node's port",
            *("service", "kourier", "--namespace=kourier-system"),
            data={"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": PORT}]}},
        ),
        _ready("Serving", "knative-serving"),
        _ready("the ingress", "kourier-system"),
        *_settings(),
        # It reads which metrics to show when it starts.
        Step(
            "the activator starts anew",
            ("kubectl", "rollout", "restart", "deployment/activator", "--namespace=knative-serving"),
            _APPLY_S,
        ),
        _ready("Serving", "knative-serving"),
        *_definitions("Eventing", places["eventing-crds.yaml"]),
        _apply("Eventing", places["eventing-core.yaml"]),
        # Its webhook checks what comes with the broker.
        _ready("Eventing's core", "knative-eventing"),
        _apply("channels and brokers", places["in-memory-channel.yaml"], places["mt-channel-broker.yaml"]),
        _small("Eventing", "knative-eventing"),
        _ready("Eventing", "knative-eventing"),
    ]


def _places(files: Path | None) -> dict[str, str]:
    if files is None:
        return {name: f"{release}/{name}" for name, release in FILES.items()}
    missing = [name for name in FILES if not (files / name).is_file()]
    if missing:
        raise ClusterError(f"{files} lacks {', '.join(missing)}: files of Knative's releases, see docs/e2e.md")
    return {name: str((files / name).absolute()) for name in FILES}


def _definitions(what: str, place: str) -> Iterator[Step]:
    yield _apply(f"definitions of {what}", place)
    established = ("--for=condition=Established", "--all", "customresourcedefinitions", "--timeout=60s")
    yield Step(f"definitions of {what} are known", ("kubectl", "wait", *established), _APPLY_S)


def _apply(what: str, *places: str) -> Step:
    """On the server's side: definitions are larger than what the client may note on an object."""
    named = [word for place in places for word in ("-f", place)]
    return Step(what, ("kubectl", "apply", "--server-side", *named), _APPLY_S)


def _small(what: str, namespace: str) -> Step:
    words = ("set", "resources", "deployments", "--all", f"--namespace={namespace}", f"--requests=cpu={CPU_REQUEST}")
    return Step(f"small CPU requests for {what}", ("kubectl", *words), _APPLY_S)


def _patch(what: str, *words: str, data: object) -> Step:
    return Step(what, ("kubectl", "patch", *words, f"--patch={json.dumps(data)}"), _APPLY_S)


def _settings() -> Iterator[Step]:
    for name, data in config_maps("kourier.ingress.networking.knative.dev").items():
        words = ("configmap", name, "--namespace=knative-serving", "--type=merge")
        yield _patch(f"Serving's {name}", *words, data={"data": dict(data)})


def _ready(what: str, namespace: str) -> Step:
    """kubectl's limit is for each Deployment; they come up together."""
    words = ("rollout", "status", "deployment", f"--namespace={namespace}", f"--timeout={_READY_S}s")
    return Step(f"{what} is ready", ("kubectl", *words), _READY_S + 60.0)
