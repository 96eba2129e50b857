"""Images of the product and of the tests' own apps, as docker archives. Pushes nothing and needs no registry.

python -m e2e.cluster.imaging NAME…     queue-proxy, autoscaler, ocr-server, affine, events, echo; prints the archives
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Literal, get_args

from e2e.cluster import rootfs
from e2e.cluster.archive import ArchiveError, static
from e2e.cluster.buildah import Buildah, driver, secrets
from e2e.cluster.command import Runner, run
from e2e.cluster.places import cache
from e2e.cluster.provider import ClusterError
from e2e.cluster.recipe import Recipe, find, recipes

__all__ = ["ArchiveError", "Tool", "build", "static"]

Tool = Literal["auto", "docker", "buildah"]
_DOCKER_TIMEOUT_S: Final = 900.0


def build(name: str, *, out_dir: Path | None = None, tool: Tool = "auto", runner: Runner = run) -> Path:
    """The docker archive of dev.local/knative-sponge/<name>:dev, in `out_dir` (the cache). Raises ClusterError.

    Built only when what it is made from has changed. `auto` is Docker where its engine answers, otherwise buildah on a base
    image that is made here. Go programs need neither.
    """
    recipe = find(name)
    if recipe.dockerfile is None:
        way, base = "go", ""
    elif tool == "docker" or (tool == "auto" and _docker_answers(runner)):
        way, base = "docker", ""
    else:
        way, base = "buildah", rootfs.recipe()
    place = out_dir or cache() / "images"
    out = place / f"{name}-{recipe.digest(way, base, platform.machine())}.tar"
    if out.exists():
        return out
    place.mkdir(parents=True, exist_ok=True)
    print(f"    building image {name} with {way}", flush=True)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{name}-") as scratch:
        half = Path(scratch) / "image.tar"
        _WAYS[way](recipe, half, runner)
        half.replace(out)
    print(f"    built image {name} in {time.monotonic() - started_s:.0f} s", flush=True)
    for old in place.glob(f"{name}-{'?' * 16}.tar"):
        if old != out:
            old.unlink()
    return out


def _with_buildah(recipe: Recipe, out: Path, runner: Runner) -> None:
    buildah = Buildah(cache() / f"buildah-{driver()}", runner)
    with buildah.alone():
        buildah.build(recipe, rootfs.python_base(buildah, runner), out)


def _with_docker(recipe: Recipe, out: Path, runner: Runner) -> None:
    """On the public Python image that the Dockerfile names."""
    assert recipe.dockerfile is not None
    command: list[str | Path] = [
        "docker",
        "build",
        *secrets(out.parent, runner),
        "-t",
        recipe.tag,
        "-f",
        recipe.dockerfile,
    ]
    runner([*command, recipe.context], timeout_s=_DOCKER_TIMEOUT_S, env={"DOCKER_BUILDKIT": "1"})
    runner(["docker", "save", "-o", out, recipe.tag], timeout_s=_DOCKER_TIMEOUT_S)


def _with_go(recipe: Recipe, out: Path, runner: Runner) -> None:
    binary = out.with_name("main")
    command: list[str | Path] = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "."]
    # The same cgo setting as everywhere: the compiler's cache is separate for each.
    runner(command, timeout_s=_DOCKER_TIMEOUT_S, env={"CGO_ENABLED": "0", "GOFLAGS": ""}, cwd=recipe.folder)
    static(recipe.tag, binary, out)


_WAYS: Final = {"buildah": _with_buildah, "docker": _with_docker, "go": _with_go}


def _docker_answers(runner: Runner) -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        runner(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=10.0)
    except ClusterError:
        return False
    return True


def main() -> int:
    """Build the images named, all without a name; 1 with the reason when one fails."""
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster.imaging", description=__doc__)
    parser.add_argument("names", nargs="*", default=[recipe.name for recipe in recipes()])
    parser.add_argument("--tool", choices=get_args(Tool), default="auto")
    parser.add_argument("--out-dir", type=Path)
    args = parser.parse_args()
    try:
        for name in args.names:
            print(build(name, out_dir=args.out_dir, tool=args.tool))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
