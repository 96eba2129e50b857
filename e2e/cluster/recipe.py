"""What an image is made from: its Dockerfile, the files that it copies, and a hash over them. Builds nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.places import REPOSITORY
from e2e.cluster.provider import ClusterError

_NOT_COPIED = "__pycache__"  # as in .dockerignore


@dataclass(frozen=True, slots=True)
class Recipe:
    """A folder with a Dockerfile, or with a Go program of the standard library alone.

    name: of the image and of the folder. folder: images/<name> or e2e/apps/<name>. context: what COPY sources are relative to.
    """

    name: str
    folder: Path
    context: Path = REPOSITORY

    @property
    def tag(self) -> str:
        """What manifests call the image. Not `latest`: Kubernetes would pull that each time."""
        return f"dev.local/knative-sponge/{self.name}:dev"

    @property
    def dockerfile(self) -> Path | None:
        """None for a Go program."""
        path = self.folder / "Dockerfile"
        return path if path.is_file() else None

    def instructions(self) -> Iterator[tuple[str, str]]:
        """The Dockerfile's instructions, (upper-case word, rest on one line), comments left out."""
        whole = ""
        for line in (self.dockerfile or Path()).read_text().splitlines():
            if line.lstrip().startswith("#"):
                continue
            whole += line.removesuffix("\\")
            if whole.strip() and not line.endswith("\\"):
                word, _, rest = whole.strip().partition(" ")
                yield word.upper(), " ".join(rest.split())
                whole = ""

    def sources(self) -> list[Path]:
        """Files and folders of the context that the image is made from. Raises ClusterError when one is missing."""
        if self.dockerfile is None:
            return [self.folder]
        named = [self.dockerfile]
        for word, rest in self.instructions():
            if word == "COPY" and not rest.startswith("--from"):
                named += [self.context / source for source in rest.split()[:-1]]
        for path in named:
            if not path.exists():
                raise ClusterError(f"{self.dockerfile} copies {path}, which does not exist")
        return named

    def digest(self, *others: str) -> str:
        """Changes when a byte or a name of the sources does, or one of `others`; not with dates or the checkout's place."""
        total = hashlib.sha256(repr(others).encode())
        for path in _files(self.sources()):
            mode = "x" if os.access(path, os.X_OK) else "-"
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(self.context)}\0{mode}{content}\n".encode())
        return total.hexdigest()[:16]


def find(name: str) -> Recipe:
    """The recipe of that name. Raises ClusterError, naming those that there are."""
    known = {recipe.name: recipe for recipe in recipes()}
    if name not in known:
        raise ClusterError(f"no image {name!r}; there are {', '.join(known)}")
    return known[name]


def recipes() -> list[Recipe]:
    """All images of the repository."""
    places = [place for parent in ("images", "e2e/apps") for place in sorted((REPOSITORY / parent).iterdir())]
    return [Recipe(p.name, p) for p in places if (p / "Dockerfile").is_file() or (p / "go.mod").is_file()]


def _files(places: Iterable[Path]) -> list[Path]:
    found: set[Path] = set()
    for place in places:
        found |= {place} if place.is_file() else {path for path in place.rglob("*") if path.is_file()}
    return sorted(path for path in found if _NOT_COPIED not in path.parts)
