"""The Debian with Python that images are built on where no registry can be reached. Knows nothing of what is built on it."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Final

from e2e.cluster.buildah import Buildah
from e2e.cluster.command import Runner, run
from e2e.cluster.places import cache
from e2e.cluster.provider import ClusterError

_SUITE: Final = "bookworm"
_PACKAGES: Final = ("python3", "python3-pip", "libstdc++6")
"""What a build stage needs; of this only the interpreter and some libraries get into an image (images/assemble.py)."""
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_NOTICES: Final = "/usr/share/doc/*/copyright"
"""They go into images, with what they are of."""
_TIMEOUT_S: Final = 900.0


def python_base(buildah: Buildah, runner: Runner = run) -> str:
    """The name under which `buildah` finds the base image, made where the cache lacks it. Raises ClusterError."""
    digest = recipe()
    name = f"localhost/knative-sponge-python:{_SUITE}-{digest}"
    if not buildah.has(name):
        buildah.wrap(root_file_system(cache() / "base" / digest / "rootfs.tar", runner), name)
    return name


def root_file_system(out: Path, runner: Runner = run) -> Path:
    """The base's files as a tar, from Debian's package registry unless `out` exists. Raises ClusterError."""
    if out.exists():
        return out
    if os.geteuid() != 0:
        raise ClusterError("the base image is made by root, because its files belong to root")
    if shutil.which("mmdebstrap") is None:
        raise ClusterError("mmdebstrap is missing: apt-get install mmdebstrap")
    out.parent.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    print(f"    making a base image: {_SUITE} with {', '.join(_PACKAGES)}", flush=True)
    half = out.with_name(f"{os.getpid()}.half.tar")  # the name's end tells mmdebstrap the format
    try:
        runner([*_command(), half], timeout_s=_TIMEOUT_S, env={"SOURCE_DATE_EPOCH": "0"})
        half.replace(out)
    finally:
        half.unlink(missing_ok=True)
    print(f"    made the base image in {time.monotonic() - started_s:.0f} s", flush=True)
    return out


def recipe() -> str:
    """Hash of what is asked for; Debian's own updates do not change it."""
    return hashlib.sha256(repr(_command()).encode()).hexdigest()[:12]


def _command() -> list[str]:
    left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT] + [f"--dpkgopt=path-include={_NOTICES}"]
    packages = f"--include={','.join(_PACKAGES)}"
    return ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", packages, *left_out, _SUITE]
