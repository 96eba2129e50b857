"""Knative Services as a user handles them: with kn. What kn does not offer is not done here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from e2e.cluster.command import run
from e2e.cluster.provider import Cluster
from e2e.cluster.waiting import wait_for
from e2e.harness.client import Client, Response

SLO: Final = "knative-sponge.dev/slo"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_WAIT_S: Final = 90


@dataclass(frozen=True, slots=True)
class Service:
    """A Knative Service and the way to it."""

    name: str
    namespace: str
    client: Client


class Services:
    """kn in one namespace. Every method raises ClusterError with what kn said."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self.namespace = namespace

    def create(
        self,
        name: str,
        image: str,
        *,
        annotations: Mapping[str, str] = _NOTHING,
        env: Mapping[str, str] = _NOTHING,
        more: Sequence[str] = (),
    ) -> Service:
        """`kn service create`, which returns once the Service is ready; then until the ingress knows the way.

        (An ingress may be called ready a moment before it routes; that is not what is tested here.)
        """
        words = ["--wait-timeout", str(_WAIT_S), *_flags("--annotation", annotations), *_flags("--env", env), *more]
        service = self._create(name, image, words)
        wait_for(f"the route to {name}", lambda: not _unknown(service.client.get()), timeout_s=20)
        return service

    def ask_for(self, name: str, image: str, *, annotations: Mapping[str, str] = _NOTHING) -> Service:
        """`kn service create`, which returns once the API server has taken the Service."""
        return self._create(name, image, ["--no-wait", *_flags("--annotation", annotations)])

    def update(
        self,
        name: str,
        *,
        annotations: Mapping[str, str] = _NOTHING,
        env: Mapping[str, str] = _NOTHING,
        more: Sequence[str] = (),
    ) -> None:
        """`kn service update`, which returns once the new revision serves. An annotation `x-` removes x."""
        words = ["--wait-timeout", str(_WAIT_S), *_flags("--annotation", annotations), *_flags("--env", env), *more]
        self.kn("service", "update", name, *words)

    def service(self, name: str) -> Service:
        """The way to a Service."""
        host = f"{name}.{self.namespace}.{self._cluster.domain}"
        return Service(name, self.namespace, Client(self._cluster.ingress, host))

    def _create(self, name: str, image: str, words: Sequence[str]) -> Service:
        self.kn("service", "create", name, "--image", f"dev.local/knative-sponge/{image}:dev", *words)
        return self.service(name)

    def kn(self, *args: str) -> str:
        """kn's standard output."""
        where = ["--kubeconfig", str(self._cluster.kubeconfig), "-n", self.namespace]
        return run([self._cluster.kn, *args, *where], timeout_s=_WAIT_S + 30)


def _unknown(answer: Response) -> bool:
    """Whether it was the ingress that found nothing: any Go server's words for it."""
    return answer.status == HTTPStatus.NOT_FOUND and answer.body == b"404 page not found\n"


def _flags(flag: str, values: Mapping[str, str]) -> list[str]:
    return [
        word for name, value in values.items() for word in (flag, name if name.endswith("-") else f"{name}={value}")
    ]
