"""What the end-to-end tests know of a cluster: how it comes, goes, gets images, and is reached. No provider is named here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Component = Literal["kubelet", "kube-apiserver"]
"""What a test may take away for a while."""


class ClusterError(Exception):
    """A cluster could not be made, reached or removed; the message says which step, and shows the last log lines."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is up, with Knative Serving and Eventing.

    ingress: base URL at which this machine reaches Knative's ingress; services are told apart by Host.
    domain: services are called <service>.<namespace>.<domain>.
    kubectl, kn: the programs that fit the cluster.
    """

    kubeconfig: Path
    ingress: str
    domain: str
    kubectl: Path
    kn: Path


class Provider(Protocol):
    """One way to have a cluster. Every step may be repeated, also after a crash half-way."""

    name: str

    def prepare(self) -> None:
        """Build what takes long and is kept between runs; `up` does it too where it was not done. Raises ClusterError."""
        ...

    def up(self) -> Cluster:
        """Make the cluster unless it is up and healthy. Raises ClusterError."""
        ...

    def down(self) -> None:
        """Leave nothing of it behind, whatever state it is in. Raises ClusterError."""
        ...

    def load(self, archive: Path) -> None:
        """Make the image of a docker-archive tar available to pods under its own tag. Raises ClusterError."""
        ...

    def stop(self, component: Component) -> None:
        """End it as a crash would. Raises ClusterError."""
        ...

    def start(self, component: Component) -> None:
        """Have it again, started as it was before. Raises ClusterError."""
        ...
