"""Builds the programs of the bare cluster from Go modules; kept by the hash of everything they are made from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from e2e.cluster.command import Runner, run
from e2e.cluster.places import MODULES
from e2e.cluster.provider import ClusterError

_BUILD_TIMEOUT_S = 2400.0
_KUBERNETES: Final = "v1.34.4"


@dataclass(frozen=True, slots=True)
class Module:
    """One directory of `e2e/bare` with its own go.mod: upstreams pin different versions of the same libraries.

    programs: package → name of its binary.
    variables: Go string variables that the linker sets.
    configs: directory name in the result → Go module whose `config` directory is kept beside the binaries.
    """

    name: str
    programs: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, str] = field(default_factory=dict)


def _kubernetes_version() -> dict[str, str]:
    """Without it the API server calls itself v0.0.0 and clients refuse to talk to it."""
    values = {
        "gitVersion": _KUBERNETES,
        "gitMajor": "1",
        "gitMinor": _KUBERNETES.split(".")[1],
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in values.items()}


def _commands(prefix: str, *names: str) -> dict[str, str]:
    return {f"{prefix}/{name}": name.rsplit("/", 1)[-1] for name in names}


MODULES_BUILT: Final = (
    Module("pause", {".": "pause"}),
    Module("etcd", {"go.etcd.io/etcd/server/v3": "etcd"}),
    Module("coredns", {".": "coredns"}),
    Module(
        "k8s",
        _commands(
            "k8s.io/kubernetes/cmd",
            *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
        ),
        _kubernetes_version(),
    ),
    Module(
        "serving",
        _commands("knative.dev/serving/cmd", "controller", "webhook", "autoscaler", "activator", "queue"),
        configs={
            "serving": "knative.dev/serving",
            "networking": "knative.dev/networking",
            "caching": "knative.dev/caching",
        },
    ),
    Module("kn", {"knative.dev/client/cmd/kn": "kn"}),
    Module("traefik", {"github.com/traefik/traefik/v3/cmd/traefik": "traefik"}),
    Module(
        "eventing",
        _commands(
            "knative.dev/eventing/cmd",
            *("controller", "webhook", "in_memory/channel_controller", "in_memory/channel_dispatcher"),
            *("broker/filter", "broker/ingress", "mtchannel_broker"),
        ),
        configs={"eventing": "knative.dev/eventing"},
    ),
)


def build_all(cache: Path, runner: Runner = run) -> dict[str, Path]:
    """Directory of each module's binaries (and `config/`), built where the cache lacks it. Raises ClusterError."""
    return {module.name: build(module, cache, runner) for module in MODULES_BUILT}


def build(module: Module, cache: Path, runner: Runner = run) -> Path:
    """The directory of one module's binaries. Appears whole or not at all."""
    place = cache / "bin" / f"{module.name}-{key(module)}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    print(f"    building {module.name} from Go modules", flush=True)
    source = MODULES / module.name
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in module.variables.items())])
    # One cgo setting for all: the compiler's cache is separate for each.
    env = {"CGO_ENABLED": "0", "GOFLAGS": ""}
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{module.name}-") as scratch:
        out = Path(scratch) / "out"
        out.mkdir(mode=0o755)
        command = ["go", "build", "-buildvcs=false", "-ldflags", flags, "-o", f"{out}{os.sep}", *module.programs]
        runner(command, timeout_s=_BUILD_TIMEOUT_S, env=env, cwd=source)
        for package, name in module.programs.items():
            _named(out, package, name, module)
        for folder, upstream in module.configs.items():
            found = json.loads(runner(["go", "list", "-m", "-json", upstream], env=env, cwd=source, timeout_s=120))
            shutil.copytree(Path(found["Dir"]) / "config", out / "config" / folder, copy_function=shutil.copyfile)
        for path in (out, *(path for path in out.rglob("*") if path.is_dir())):
            path.chmod(0o755)
        out.rename(place)
    print(f"    built {module.name} in {time.monotonic() - started_s:.0f} s", flush=True)
    for old in place.parent.glob(f"{module.name}-*"):
        if old != place:
            shutil.rmtree(old)
    return place


def key(module: Module) -> str:
    """Hash of what the module's binaries are made from: its directory, and what is asked of the compiler."""
    digest = hashlib.sha256(repr(module).encode())
    for path in sorted((MODULES / module.name).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _named(out: Path, package: str, name: str, module: Module) -> None:
    """Go names a binary after the last element of its path that is no version."""
    if (out / name).exists():
        return
    parts = [part for part in package.split("/") if not (part[:1] == "v" and part[1:].isdigit())]
    made = out / parts[-1]
    if not made.exists():
        raise ClusterError(f"the Go build of {module.name} left no {name}")
    made.rename(out / name)
