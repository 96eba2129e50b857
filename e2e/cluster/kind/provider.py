"""A kind cluster from nothing to ready and back. What is run, and in which order, is in steps.py."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Final

from e2e.cluster.command import Runner, run
from e2e.cluster.exclusive import alone
from e2e.cluster.kind.steps import FAULTS, NAME, NODE, PORT, Step, steps
from e2e.cluster.places import REPOSITORY, cache
from e2e.cluster.provider import Cluster, ClusterError, Component
from e2e.cluster.settings import DOMAIN

FILES_VARIABLE: Final = "SPONGE_E2E_KNATIVE"
"""Names a directory with Knative's release files, instead of GitHub."""

_TOOLS: Final = {
    "docker": "https://docs.docker.com/engine/install/",
    "kind": "https://kind.sigs.k8s.io/ (0.31 or newer)",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
    "kn": "https://knative.dev/docs/client/install-kn/",
}


class Kind:
    """A `Provider`. Needs docker with its engine running, kind, kubectl and kn in PATH, and no root."""

    name = "kind"

    def __init__(self, runner: Runner = run) -> None:
        self._runner = runner
        self._directory = cache() / "kind"
        self._kubeconfig = self._directory / "kubeconfig"
        self._complete = self._directory / "complete"

    def steps(self) -> list[Step]:
        """What `up` does to make a cluster. Raises ClusterError when release files are missing."""
        files = os.environ.get(FILES_VARIABLE)
        return steps(Path(files) if files else None)

    def prepare(self) -> None:
        """Nothing is built: see that the tools are there. Raises ClusterError, saying how to get them."""
        _programs()
        self._run("docker", "version", "--format={{.Server.Version}}")

    def up(self) -> Cluster:
        """Make the cluster anew unless it was made by these steps and answers. Takes minutes; images come from registries."""
        self.prepare()
        programs = _programs()
        plan = self.steps()
        with alone(self._lock()):
            if not self._answers(plan):
                self._remove()
                started_s = time.monotonic()
                self._make(plan)
                print(f"    cluster up in {time.monotonic() - started_s:.0f} s", flush=True)
        return Cluster(
            kubeconfig=self._kubeconfig,
            ingress=f"http://127.0.0.1:{PORT}",
            domain=DOMAIN,
            kubectl=programs["kubectl"],
            kn=programs["kn"],
        )

    def down(self) -> None:
        """Delete the cluster; not an error when there is none."""
        with alone(self._lock()):
            self._remove()

    def load(self, archive: Path) -> None:
        """Copy an image into the node."""
        self._run("kind", "load", "image-archive", str(archive.absolute()), f"--name={NAME}", timeout_s=300)

    def stop(self, component: Component) -> None:
        """The kubelet by its unit; the API server by taking its manifest away from the kubelet."""
        self._run("docker", "exec", NODE, *FAULTS[component][0])

    def start(self, component: Component) -> None:
        """The reverse."""
        self._run("docker", "exec", NODE, *FAULTS[component][1])

    def _make(self, plan: list[Step]) -> None:
        self._directory.mkdir(parents=True)
        for number, step in enumerate(plan, 1):
            print(f"    {number}/{len(plan)} {step.title}", flush=True)
            try:
                self._run(*step.argv, timeout_s=step.timeout_s)
            except ClusterError as error:
                raise ClusterError(f"step {number} of {len(plan)}, {step.title}: {error}{self._pods()}") from error
        self._complete.write_text(_key(plan))

    def _answers(self, plan: list[Step]) -> bool:
        """Whether the cluster of exactly this plan is there. Its kubeconfig fits no other cluster."""
        with contextlib.suppress(FileNotFoundError, ClusterError):
            if self._complete.read_text() == _key(plan):
                return self._run("kubectl", "get", "--raw=/readyz", "--request-timeout=10s") == "ok"
        return False

    def _remove(self) -> None:
        if NAME in self._run("kind", "get", "clusters").splitlines():
            self._run("kind", "delete", "cluster", f"--name={NAME}", timeout_s=120)
        if self._directory.exists():
            shutil.rmtree(self._directory)

    def _pods(self) -> str:
        """For the message of a failed step."""
        with contextlib.suppress(ClusterError):
            pods = self._run("kubectl", "get", "pods", "--all-namespaces", "--request-timeout=10s")
            return f"\n--- pods\n{pods}" if pods else ""
        return ""

    def _run(self, *words: str, timeout_s: float = 30.0) -> str:
        env = {"KUBECONFIG": str(self._kubeconfig)}
        return self._runner(words, timeout_s=timeout_s, env=env, cwd=REPOSITORY)

    def _lock(self) -> Path:
        return cache() / "kind.lock"


def _programs() -> dict[str, Path]:
    found = {name: shutil.which(name) for name in _TOOLS}
    missing = [f"{name}: {_TOOLS[name]}" for name, path in found.items() if path is None]
    if missing:
        raise ClusterError("the kind cluster needs programs that are not in PATH\n" + "\n".join(missing))
    return {name: Path(path) for name, path in found.items() if path is not None}


def _key(plan: list[Step]) -> str:
    """Changes when a step does, or what cluster.yaml asks for."""
    config = (Path(__file__).parent / "cluster.yaml").read_bytes()
    return hashlib.sha256(repr(plan).encode() + config).hexdigest()[:16]
