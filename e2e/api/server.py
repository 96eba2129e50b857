"""etcd and kube-apiserver on this machine's loopback: the real API, and nothing besides that acts on what it holds."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import yaml

from e2e.cluster.bare import config
from e2e.cluster.bare.build import MODULES_BUILT, build
from e2e.cluster.bare.node import Node
from e2e.cluster.command import run
from e2e.cluster.places import REPOSITORY, cache
from e2e.cluster.provider import ClusterError
from e2e.cluster.waiting import wait_for

_NEEDED: Final = ("etcd", "k8s", "serving")
_READY_S: Final = 60.0
_MANIFESTS: Final = ("namespace.yaml", "rbac.yaml", "policies.yaml", "webhooks.yaml")
"""Of `manifests/base`; there is nothing that a Service or a Deployment could lead to."""
_DEFINITIONS: Final = (
    "serving/core/300-resources/podautoscaler.yaml",
    "serving/core/300-resources/revision.yaml",
    "networking/serverlessservice.yaml",
)
"""Knative's own, of what the controller reads and writes."""


def binaries() -> dict[str, Path]:
    """Directories of etcd, Kubernetes and Knative Serving, built where the cache lacks them. Raises ClusterError."""
    return {module.name: build(module, cache()) for module in MODULES_BUILT if module.name in _NEEDED}


class Server:
    """Both processes; `with Server(...) as server:` has them running, with the product's RBAC and Knative's definitions.

    directory: empty; certificates, logs and etcd's data go there.
    """

    def __init__(self, directory: Path, programs: Mapping[str, Path]) -> None:
        self._directory = directory
        self._programs = programs
        self._etcd_port, self._peer_port, self._port = _free_ports(3)
        self.url = f"https://127.0.0.1:{self._port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Server:
        Node(self._directory, {}).certificates()
        try:
            self._start("etcd", self._programs["etcd"] / "etcd", self._etcd_flags())
            self.start()
            self._set_up()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end()

    def start(self) -> None:
        """Start the API server, at first or after `kill`, and wait until it is ready. Raises ClusterError."""
        self._start("kube-apiserver", self._programs["k8s"] / "kube-apiserver", self._api_flags())
        logs = [self._log(name) for name in self._processes]
        wait_for("the API server", self._ready, timeout_s=_READY_S, logs=logs, alive=self._check)

    def kill(self) -> None:
        """End the API server as a crash would; what is stored stays."""
        self._kill("kube-apiserver")

    def trust(self, *, admin: bool) -> ssl.SSLContext:
        """How to connect: the server is verified; admin: this side is its administrator, otherwise nobody."""
        pki = self._directory / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        if admin:
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        return context

    def _set_up(self) -> None:
        config_of = self._programs["serving"] / "config"
        definitions = [one for name in _DEFINITIONS for one in _objects(config_of / name)]
        self._apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}}, *definitions])
        self._kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=30s")
        base = REPOSITORY / "manifests" / "base"
        self._apply([one for name in _MANIFESTS for one in _objects(base / name)])

    def _apply(self, objects: Sequence[dict[str, Any]]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self._kubectl("apply", "--server-side", "-f", "-", stdin=text)

    def _kubectl(self, *args: str, stdin: str = "") -> None:
        kubectl, who = self._programs["k8s"] / "kubectl", self._directory / "admin.kubeconfig"
        run([kubectl, "--kubeconfig", who, "--server", self.url, *args], stdin=stdin, timeout_s=60)

    def _etcd_flags(self) -> dict[str, Any]:
        clients, peers = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        return config.etcd(self._directory) | {
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
        }

    def _api_flags(self) -> dict[str, Any]:
        return config.api_server(self._directory / "pki") | {
            "advertise-address": "127.0.0.1",
            "bind-address": "127.0.0.1",
            "secure-port": self._port,
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            # Nobody makes service accounts for the pods' namespaces, and the loopback is no endpoint.
            "disable-admission-plugins": "ServiceAccount",
            "endpoint-reconciler-type": "none",
        }

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", context=self.trust(admin=True), timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError) as error:
            raise ClusterError(str(error)) from error

    def _start(self, name: str, program: Path, flags: Mapping[str, Any]) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [program, *(f"--{flag}={value}" for flag, value in flags.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ClusterError(f"{name} has ended")

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def _end(self) -> None:
        for name in reversed(list(self._processes)):
            self._kill(name)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    return (one for one in yaml.safe_load_all(file.read_text()) if one)


def _free_ports(number: int) -> list[int]:
    """Ports of the loopback that nobody listens on; all are held until all are known."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]
