"""Docker archives written byte by byte: one layer, no dates, no owners' names. Runs no tool and knows no registry."""

import hashlib
import io
import json
import os
import struct
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO

from e2e.cluster.provider import ClusterError

NOTHING: Mapping[str, Path] = MappingProxyType({})

_ELF_MACHINES = {62: "amd64", 183: "arm64"}
_PASSWD = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
_GROUP = "root:x:0:\nnonroot:x:65532:\n"


class ArchiveError(ClusterError):
    """What was given cannot become an image; the message says why."""


def static(tag: str, binary: Path, out: Path, *, user: str = "65532", extra: Mapping[str, Path] = NOTHING) -> Path:
    """An image of one statically linked program, as `docker save` would write it. Returns `out`.

    `binary` becomes /app/main and the entry point; `extra` maps absolute paths in the image to files here (a CA bundle, say).
    `user` is a numeric id, because Kubernetes cannot tell whether a name is root. The same inputs give the same bytes.
    Raises ArchiveError for a program that is no 64-bit Linux one for amd64 or arm64, a user that is no number, a relative path.
    """
    if not user.isdecimal():
        raise ArchiveError(f"user {user!r}: a number is needed")
    architecture = _architecture(binary)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent) as layer:
        _write_layer(
            layer, {**{_inside(path): file for path, file in extra.items()}, PurePosixPath("app/main"): binary}
        )
        digest = _sha256(layer)
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"User": user, "Entrypoint": ["/app/main"], "WorkingDir": "/", "Env": ["PATH=/app"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "static"}],
        }
        _write_archive(out, tag, json.dumps(config, sort_keys=True).encode(), digest, layer)
    return out


def _architecture(binary: Path) -> str:
    with binary.open("rb") as file:
        head = file.read(20)
    if len(head) == 20 and head[:6] == b"\x7fELF\x02\x01":
        machine = _ELF_MACHINES.get(struct.unpack_from("<H", head, 18)[0])
        if machine:
            return machine
    raise ArchiveError(f"{binary} is no 64-bit Linux program for {' or '.join(_ELF_MACHINES.values())}")


def _inside(path: str) -> PurePosixPath:
    if not path.startswith("/") or ".." in PurePosixPath(path).parts or PurePosixPath(path) == PurePosixPath("/"):
        raise ArchiveError(f"{path!r} is not a file's absolute path in the image")
    return PurePosixPath(path).relative_to("/")


def _write_layer(target: IO[bytes], files: Mapping[PurePosixPath, Path]) -> None:
    texts = {PurePosixPath("etc/passwd"): _PASSWD, PurePosixPath("etc/group"): _GROUP}
    folders = {parent for path in (*files, *texts) for parent in path.parents if parent.name} | {PurePosixPath("tmp")}
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted({*folders, *files, *texts}):  # a folder sorts before what is in it
            entry = tarfile.TarInfo(str(path))
            if path in files:
                entry.size = files[path].stat().st_size
                entry.mode = 0o755 if os.access(files[path], os.X_OK) or path.match("app/main") else 0o644
                with files[path].open("rb") as content:
                    tar.addfile(entry, content)
            elif path in texts:
                entry.size, entry.mode = len(texts[path]), 0o644
                tar.addfile(entry, io.BytesIO(texts[path].encode()))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if path == PurePosixPath("tmp") else 0o755
                tar.addfile(entry)


def _write_archive(out: Path, tag: str, config: bytes, digest: str, layer: IO[bytes]) -> None:
    """Beside `out` first, so that nobody finds half an archive."""
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]}]
    half = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with tarfile.open(half, "w", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, name, io.BytesIO(config))
            _add(tar, f"{digest}/layer.tar", layer)
            _add(tar, "manifest.json", io.BytesIO(json.dumps(manifest).encode()))
        half.replace(out)
    finally:
        half.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    tar.addfile(entry, content)


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
