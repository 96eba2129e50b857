"""Builds images with buildah, in a storage of its own. Touches no other storage and leaves no mounts."""

from __future__ import annotations

import ast
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.command import Runner, run
from e2e.cluster.provider import ClusterError
from e2e.cluster.recipe import Recipe

_BUILD_TIMEOUT_S: Final = 900.0
_CA_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
_PIP_OPTIONS: Final = {"default-timeout", "extra-index-url", "index-url", "proxy", "retries", "timeout", "trusted-host"}


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah with its images, its caches and its temporary files under `storage`."""

    storage: Path
    runner: Runner = run

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else builds in this storage meanwhile; what a killed build left mounted in it is gone first."""
        self.storage.mkdir(parents=True, exist_ok=True)
        with (self.storage / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._run("rm", "--all")
            yield

    def has(self, image: str) -> bool:
        """Whether the storage holds `image`."""
        return any(line == image for line in self._run("images", "--format", "{{.Name}}:{{.Tag}}").splitlines())

    def wrap(self, rootfs: Path, image: str) -> None:
        """Make an image out of a root file system's tar. Raises ClusterError."""
        text = f"FROM scratch\nADD {rootfs.name} /\n"
        self._run("build", "--timestamp", "0", "-t", image, "-f", "-", rootfs.parent, stdin=text)

    def build(self, recipe: Recipe, base: str, out: Path) -> None:
        """Write `recipe`'s image as a docker archive to `out`. Raises ClusterError."""
        assert recipe.dockerfile is not None
        arguments: list[str | Path] = [
            "--timestamp",
            "0",
            "--build-arg",
            f"BASE={base}",
            "-t",
            recipe.tag,
            "-f",
            recipe.dockerfile,
        ]
        with tempfile.TemporaryDirectory() as scratch:
            self._run("build", *secrets(Path(scratch), self.runner), *arguments, recipe.context)
        self._run("push", recipe.tag, f"docker-archive:{out}:{recipe.tag}")
        self._run("rmi", recipe.tag)

    def _run(self, verb: str, *args: str | Path, stdin: str = "") -> str:
        if shutil.which("buildah") is None:
            raise ClusterError("buildah is missing: apt-get install buildah")
        temporary = self.storage / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        # No mount of the storage onto itself: it would stay after the program.
        place: list[str | Path] = ["--root", self.storage / "root", "--runroot", self.storage / "run"]
        options = ["--storage-opt", "overlay.skip_mount_home=true"] if driver() == "overlay" else []
        env = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": driver(), "TMPDIR": str(temporary)}
        return self.runner(["buildah", *place, *options, verb, *args], timeout_s=_BUILD_TIMEOUT_S, env=env, stdin=stdin)


def driver() -> str:
    """How the storage keeps layers: the user's STORAGE_DRIVER (vfs works everywhere, slowly), otherwise overlay."""
    return os.environ.get("STORAGE_DRIVER") or "overlay"


def secrets(scratch: Path, runner: Runner = run) -> list[str]:
    """Options that lend a build this machine's way to PyPI, without a trace of it in the image: pip's settings and the CAs."""
    pip_conf = scratch / "pip.conf"
    listed = runner([sys.executable, "-m", "pip", "config", "list"])
    pip_conf.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in _pip_settings(listed).items()))
    options = ["--secret", f"id=pip.conf,src={pip_conf}"]
    bundle = os.environ.get("SSL_CERT_FILE") or _CA_BUNDLE
    return [*options, "--secret", f"id=ca-bundle,src={bundle}"] if Path(bundle).is_file() else options


def _pip_settings(listed: str) -> dict[str, str]:
    """From `pip config list`: lines such as global.timeout='60'; variables of the environment come last and win."""
    settings = {"cert": _CA_BUNDLE}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        if name.rpartition(".")[2] in _PIP_OPTIONS:
            settings[name.rpartition(".")[2]] = str(ast.literal_eval(value)).replace("\n", " ")
    return settings
