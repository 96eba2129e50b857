"""The processes that make a node and a control plane: their flags, files and order. Knows nothing of Knative."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e.cluster.bare import config
from e2e.cluster.bare.certificates import Authority, service_account_keys
from e2e.cluster.bare.config import CGROUP, NODE, SERVER
from e2e.cluster.bare.network import API_IP, NODE_IP
from e2e.cluster.bare.process import Processes
from e2e.cluster.command import Runner, run
from e2e.cluster.waiting import wait_for

_HIERARCHIES = ("cpu", "cpuacct", "cpuset", "memory", "pids", "systemd", "blkio", "devices", "freezer", "hugetlb")


class Node:
    """A control plane and its only node, in one run directory."""

    def __init__(self, directory: Path, binaries: dict[str, Path], runner: Runner = run) -> None:
        self.directory = directory
        self.processes = Processes(directory)
        self.kubeconfig = directory / "admin.kubeconfig"
        self.socket = directory / "containerd" / "c.sock"
        self._pki = directory / "pki"
        self._binaries = binaries
        self._runner = runner

    @property
    def kubectl(self) -> Path:
        """The program of the cluster's own version."""
        return self._binaries["k8s"] / "kubectl"

    def certificates(self) -> None:
        """Who is who: one authority, one certificate per component, one kubeconfig per user."""
        self._pki.mkdir(parents=True)
        authority = Authority(self._pki, "ca")
        both = ("client", "server")
        authority.leaf(
            "apiserver",
            "kube-apiserver",
            uses=["server"],
            names=[
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
            addresses=[NODE_IP, API_IP, "127.0.0.1"],
        )
        authority.leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", organization="system:masters")
        kubelet = authority.leaf(
            "kubelet", f"system:node:{NODE}", organization="system:nodes", uses=both, names=[NODE], addresses=[NODE_IP]
        )
        users = {
            "admin": authority.leaf("admin", "admin", organization="system:masters"),
            "controller-manager": authority.leaf("controller-manager", "system:kube-controller-manager"),
            "scheduler": authority.leaf("scheduler", "system:kube-scheduler"),
            "proxy": authority.leaf("proxy", "system:kube-proxy"),
            "kubelet": kubelet,
        }
        for user, pair in users.items():
            authority.kubeconfig(self.directory / f"{user}.kubeconfig", SERVER, pair)
        Authority(self._pki, "front-proxy-ca").leaf("front-proxy-client", "front-proxy-client")
        service_account_keys(self._pki)

    def containers(self) -> None:
        """containerd, ready to take images."""
        directory = self.directory
        network = directory / "cni" / "net.d"
        network.mkdir(parents=True)
        (directory / "containerd").mkdir()
        (network / "10-pod.conflist").write_text(json.dumps(config.pod_network(directory)))
        (directory / "containerd.toml").write_text(config.containerd(directory, self.socket))
        self.processes.start("containerd", ["containerd", "--config", directory / "containerd.toml"])
        self._wait("containerd", lambda: bool(self._runner(["ctr", "-a", self.socket, "version"])), 20)

    def load(self, archive: Path) -> None:
        """Import a docker-archive. The kubelet sees its tag at once."""
        self._runner(["ctr", "-a", self.socket, "-n", "k8s.io", "images", "import", archive], timeout_s=300)

    def control_plane(self) -> None:
        """etcd, API server, controller manager, scheduler; the API server ready."""
        k8s, pki, start = self._binaries["k8s"], self._pki, self.processes.start
        start("etcd", [self._binaries["etcd"] / "etcd", *_flags(config.etcd(self.directory))])
        start("kube-apiserver", [k8s / "kube-apiserver", *_flags(config.api_server(pki))])
        self._wait("the API server", lambda: self.kubectl_run("get", "--raw", "/readyz") == "ok", 60)
        for name, extra in (("controller-manager", config.controller_manager(pki)), ("scheduler", {})):
            own = self.directory / f"{name}.kubeconfig"
            flags = {
                "kubeconfig": own,
                "authentication-kubeconfig": own,
                "authorization-kubeconfig": own,
                "bind-address": "127.0.0.1",
                "leader-elect": "false",
                **extra,
            }
            start(f"kube-{name}", [k8s / f"kube-{name}", *_flags(flags)])

    def node(self) -> None:
        """kubelet and kube-proxy; the node Ready."""
        directory, k8s = self.directory, self._binaries["k8s"]
        for group in cgroups():
            group.mkdir(exist_ok=True)
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (directory / "kubelet.json").write_text(json.dumps(config.kubelet(directory, self._pki, self.socket)))
        (directory / "proxy.json").write_text(json.dumps(config.kube_proxy(directory)))
        flags = {
            "config": directory / "kubelet.json",
            "kubeconfig": directory / "kubelet.kubeconfig",
            "root-dir": directory / "kubelet",
            "cert-dir": directory / "kubelet" / "pki",
            "hostname-override": NODE,
            "node-ip": NODE_IP,
        }
        self.processes.start("kubelet", [k8s / "kubelet", *_flags(flags)])
        # It ends when its file is written again, even unchanged: written once, above.
        self.processes.start("kube-proxy", [k8s / "kube-proxy", "--config", directory / "proxy.json"])
        ready = ["get", "node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"]
        self._wait("the node", lambda: self.kubectl_run(*ready) == "True", 60)

    def kubectl_run(self, *args: str | Path, stdin: str = "", timeout_s: float = 60.0) -> str:
        """kubectl as the cluster's administrator."""
        return self._runner([self.kubectl, "--kubeconfig", self.kubeconfig, *args], stdin=stdin, timeout_s=timeout_s)

    def healthy(self) -> bool:
        """Whether its processes live and the API server says that it is ready."""
        if not self.processes.running():
            return False
        return self.kubectl_run("get", "--raw", "/readyz", "--request-timeout=5s") == "ok"

    def _wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        logs = [self.processes.log(name) for name in ("containerd", "etcd", "kube-apiserver", "kubelet")]
        wait_for(what, condition, timeout_s=timeout_s, logs=logs, alive=self.processes.check)


def cgroups() -> list[Path]:
    """The pods' group in each hierarchy of this machine."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root / CGROUP]
    return [root / name / CGROUP for name in _HIERARCHIES if (root / name / "cgroup.procs").exists()]


def cgroups_left() -> list[Path]:
    """Every group of that name: the runtime makes one in hierarchies, too, that no limit is set in."""
    root = Path("/sys/fs/cgroup")
    return [*root.glob(CGROUP), *root.glob(f"*/{CGROUP}")]


def _flags(values: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]
