"""The cluster's objects, through kubectl: read as dictionaries, applied, waited for. No test knows a flag of kubectl."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from e2e.cluster.command import run
from e2e.cluster.provider import Cluster, ClusterError
from e2e.cluster.waiting import wait_for

Object = dict[str, Any]

_GET_S: Final = 10.0


class Kube:
    """kubectl as the cluster's administrator. Every method raises ClusterError with what kubectl said."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __call__(self, *args: str | Path, stdin: str = "", timeout_s: float = 60.0) -> str:
        """kubectl's standard output."""
        command = [self._cluster.kubectl, "--kubeconfig", self._cluster.kubeconfig, *args]
        return run(command, stdin=stdin, timeout_s=timeout_s)

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """One object."""
        found: Object = json.loads(self("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def find(self, kind: str, namespace: str | None = "default", selector: str = "") -> list[Object]:
        """All objects of a kind; without a namespace, of all namespaces or cluster-wide."""
        where = ["-A"] if namespace is None else ["-n", namespace]
        found: list[Object] = json.loads(self("get", kind, *where, "-l", selector, "-o", "json"))["items"]
        return found

    def apply(self, objects: Iterable[Object]) -> None:
        """Create or change."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self("apply", "-f", "-", stdin=text)

    def patch(self, kind: str, name: str, change: Object, namespace: str = "default") -> None:
        """Merge patch."""
        self("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(change))

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete, if it is there, and wait until it is gone."""
        self("delete", kind, name, "-n", namespace, "--ignore-not-found", "--timeout=60s", timeout_s=70)

    def pods(self, service: str, namespace: str) -> list[Object]:
        """A Service's pods that are not on their way out, oldest first."""
        found = self.find("pods", namespace, f"serving.knative.dev/service={service}")
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(alive, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def pod_get(self, pod: Object, port: int, path: str) -> str:
        """GET a path of a pod's port, from the pod's own loopback address."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        with self.forwarded(f"pod/{name}", port, namespace) as local:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{local}{path}", timeout=_GET_S) as answer:
                    text: str = answer.read().decode()
                    return text
            except OSError as error:
                raise ClusterError(f"GET {path} of {namespace}/{name}:{port}: {error}") from error

    @contextlib.contextmanager
    def forwarded(self, target: str, port: int, namespace: str) -> Iterator[int]:
        """While the block runs, a port of 127.0.0.1 leads to a Service's or pod's port (`svc/name`, `pod/name`)."""
        where = ["--kubeconfig", str(self._cluster.kubeconfig), "-n", namespace]
        command = [str(self._cluster.kubectl), *where, "port-forward", target, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                said = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+) ->", said)
                if found is None:
                    raise ClusterError(f"no way to {target}: {said}")
                yield int(found[1])
            finally:
                process.kill()

    def until(self, what: str, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait; an object that is not there yet is not yet what is waited for."""
        wait_for(what, condition, timeout_s=timeout_s, every_s=0.25)

    def exists(self, kind: str, name: str, namespace: str = "default") -> bool:
        """Whether there is such an object."""
        try:
            self.get(kind, name, namespace)
        except ClusterError as error:
            if "NotFound" in str(error):
                return False
            raise
        return True

    def events_of(self, kind: str, name: str, namespace: str) -> list[Object]:
        """Kubernetes events about an object."""
        found = self.find("events", namespace)
        return [one for one in found if (one["involvedObject"]["kind"], one["involvedObject"]["name"]) == (kind, name)]


def condition(of: Object, name: str) -> str:
    """The status of a condition; empty when it is not there."""
    found = of.get("status", {}).get("conditions", [])
    return next((str(one["status"]) for one in found if one["type"] == name), "")


def container(pod: Object, name: str) -> Object:
    """A container of a pod."""
    found: Object = next(one for one in pod["spec"]["containers"] if one["name"] == name)
    return found


def env_of(one: Object) -> dict[str, str]:
    """A container's literal environment."""
    return {item["name"]: item.get("value", "") for item in one.get("env", [])}
