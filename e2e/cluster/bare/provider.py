"""The bare cluster from nothing to ready and back: the order of the steps. What each step does is in its own module."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from e2e.cluster import archive
from e2e.cluster.bare import knative, network
from e2e.cluster.bare.build import MODULES_BUILT, build_all, key
from e2e.cluster.bare.config import PAUSE
from e2e.cluster.bare.node import Node, cgroups_left
from e2e.cluster.bare.process import Processes, kill_group
from e2e.cluster.command import Runner, run
from e2e.cluster.exclusive import alone
from e2e.cluster.places import cache, run_directory
from e2e.cluster.provider import Cluster, ClusterError, Component
from e2e.cluster.settings import DOMAIN

_TOOLS: Final = {
    "containerd": "containerd", "ctr": "containerd", "runc": "runc", "iptables": "iptables", "conntrack": "conntrack",
    "ip": "iproute2", "nsenter": "util-linux", "sysctl": "procps",
}  # fmt: skip
_CNI: Final = Path("/usr/lib/cni/ptp")
_UP_S: Final = 120


class Bare:
    """A `Provider`. Needs root, Debian's containerd and runc, and Go 1.25 or newer for the first build."""

    name = "bare"

    def __init__(self, runner: Runner = run) -> None:
        self._runner = runner
        self._directory = run_directory()

    def prepare(self) -> None:
        """Build the binaries that the cache lacks: about 18 minutes of two cores when it has none."""
        _check_machine()
        with alone(_lock()):
            build_all(cache(), self._runner)

    def up(self) -> Cluster:
        """Start everything. Takes less than a minute once the binaries are built."""
        _check_machine()
        with alone(_lock()):
            binaries = build_all(cache(), self._runner)
            node = Node(self._directory, binaries, self._runner)
            cluster = Cluster(
                kubeconfig=node.kubeconfig,
                ingress=f"http://{network.INGRESS_IP}",
                domain=DOMAIN,
                kubectl=node.kubectl,
                kn=binaries["kn"] / "kn",
            )
            if self._complete() == _key() and node.healthy():
                return cluster
            self._remove()
            started_s = time.monotonic()
            self._make(node, binaries)
            (self._directory / "complete").write_text(_key())
            print(f"    cluster up in {time.monotonic() - started_s:.1f} s", flush=True)
            return cluster

    def down(self) -> None:
        """Kill its processes, undo its mounts, delete its network, cgroup and state."""
        with alone(_lock()):
            self._remove()

    def load(self, archive: Path) -> None:
        """Import an image."""
        Node(self._directory, {}, self._runner).load(archive)

    def stop(self, component: Component) -> None:
        """SIGKILL."""
        Processes(self._directory).stop(component)

    def start(self, component: Component) -> None:
        """With the words that it was started with first."""
        Processes(self._directory).again(component)

    def _make(self, node: Node, binaries: dict[str, Path]) -> None:
        self._directory.mkdir(parents=True)
        network.make(self._runner)
        node.certificates()
        node.containers()
        serving, eventing = binaries["serving"], binaries["eventing"]
        with ThreadPoolExecutor(1) as pool:
            images = pool.submit(_load_images, node, binaries)
            node.control_plane()
            _apply(node, knative.first(serving, eventing))
            node.kubectl_run("wait", "--for=condition=Established", "--all", "crd", "--timeout=60s", timeout_s=70)
            images.result()
        node.node()
        _apply(node, knative.second(serving, eventing))
        try:
            wait = ["wait", "--for=condition=Available", "--all", "deployments", "-A", f"--timeout={_UP_S}s"]
            node.kubectl_run(*wait, timeout_s=_UP_S + 10)
        except ClusterError as error:
            node.processes.check()
            raise ClusterError(f"{error}\n{_sick_pods(node)}") from error

    def _remove(self) -> None:
        directory = self._directory
        Processes(directory).kill()
        kill_group(cgroups_left())
        Processes(directory).kill()  # what containerd's shims left when their containers died
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{directory}/"):
                self._runner(["umount", "-l", mount])
        network.remove(self._runner)
        if directory.exists():
            shutil.rmtree(directory)

    def _complete(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / "complete").read_text()
        return ""


def _sick_pods(node: Node) -> str:
    """Which pods are not ready, with the last words of each."""
    pods = json.loads(node.kubectl_run("get", "pods", "-A", "-o", "json"))["items"]
    text = ""
    for pod in pods:
        for status in pod["status"].get("containerStatuses", []):
            if not status["ready"]:
                name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
                text += f"--- {namespace}/{name}: {json.dumps(status['state'])}\n"
                with contextlib.suppress(ClusterError):
                    text += node.kubectl_run("logs", "-n", namespace, name, "--tail=5")[-2000:]
    return text


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise ClusterError("the bare cluster needs root: it makes namespaces, mounts and cgroups")
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if not _CNI.exists():
        missing.add("containernetworking-plugins")
    if missing:
        raise ClusterError(f"missing Debian packages: {' '.join(sorted(missing))}")


def _load_images(node: Node, binaries: dict[str, Path]) -> None:
    for tag, binary in _images(binaries):
        kept = cache() / "images" / binary.parent.name / f"{binary.name}.tar"
        if not kept.exists():
            _drop_old(kept.parent)
            draft = kept.with_suffix(".draft")
            archive.static(tag, binary, draft).rename(kept)
        node.load(kept)


def _images(binaries: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    yield PAUSE, binaries["pause"] / "pause"
    for name in ("coredns", "traefik"):
        yield f"dev.local/{name}:dev", binaries[name] / name
    for module in MODULES_BUILT:
        if module.name in ("serving", "eventing"):
            for program in module.programs.values():
                yield knative.image(module.name, program), binaries[module.name] / program


def _drop_old(directory: Path) -> None:
    """Images of an earlier build of the same module."""
    for old in directory.parent.glob(directory.name.rsplit("-", 1)[0] + "-*"):
        if old != directory:
            shutil.rmtree(old)


def _apply(node: Node, objects: Sequence[knative.Object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    node.kubectl_run("apply", "--server-side", "-f", "-", stdin=text, timeout_s=120)


def _lock() -> Path:
    return cache() / "bare.lock"


def _key() -> str:
    return " ".join(key(module) for module in MODULES_BUILT)
