"""Archives of static programs: what a container runtime reads out of them, and that they never differ without a reason."""

import hashlib
import json
import os
import struct
import tarfile
from pathlib import Path

import pytest

from e2e.cluster.archive import ArchiveError, static


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return a_program(tmp_path / "program")


def a_program(path: Path, machine: int = 62) -> Path:
    path.write_bytes(b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack("<HH", 2, machine) + b"code" * 3000)
    return path


def unpack(archive: Path, into: Path) -> tuple[dict[str, object], tarfile.TarFile]:
    """The image's configuration and its layer, by way of the manifest; every digest on that way is checked."""
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (image,) = json.loads((into / "manifest.json").read_text())
    config = (into / image["Config"]).read_bytes()
    assert image["Config"] == hashlib.sha256(config).hexdigest() + ".json"
    (layer,) = image["Layers"]
    digest = hashlib.sha256((into / layer).read_bytes()).hexdigest()
    described = json.loads(config)
    assert described["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    return {**described, "tags": image["RepoTags"]}, tarfile.open(into / layer)


def test_an_archive_holds_the_program_as_its_entry_point(program: Path, tmp_path: Path) -> None:
    config, layer = unpack(static("dev.local/x:dev", program, tmp_path / "out" / "x.tar"), tmp_path / "unpacked")
    with layer:
        main = layer.getmember("app/main")
        content = layer.extractfile(main)
        assert content is not None
        assert content.read() == program.read_bytes()
    assert main.mode == 0o755
    assert config["tags"] == ["dev.local/x:dev"]
    assert config["architecture"] == "amd64"
    assert config["config"] == {"User": "65532", "Entrypoint": ["/app/main"], "WorkingDir": "/", "Env": ["PATH=/app"]}


def test_a_program_finds_users_a_scratch_folder_and_extra_files(program: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_text("certificates")
    extra = {"/etc/ssl/certs/ca-certificates.crt": bundle}
    _, layer = unpack(static("x:dev", program, tmp_path / "x.tar", extra=extra), tmp_path / "unpacked")
    with layer:
        modes = {entry.name: entry.mode for entry in layer}
        passwd = layer.extractfile("etc/passwd")
        assert passwd is not None
        assert "65532:65532" in passwd.read().decode()
    assert modes["tmp"] == 0o1777
    assert modes["etc/ssl/certs/ca-certificates.crt"] == 0o644
    assert list(modes) == sorted(modes)
    assert {"app", "etc", "etc/ssl", "etc/ssl/certs"} <= set(modes)


def test_the_same_program_gives_the_same_bytes_whenever_and_wherever(program: Path, tmp_path: Path) -> None:
    first = static("x:dev", program, tmp_path / "a.tar", extra={"/b": program, "/a": program}).read_bytes()
    os.utime(program, (1, 1))
    again = a_program(tmp_path / "elsewhere")
    again.chmod(0o600)
    assert static("x:dev", again, tmp_path / "b.tar", extra={"/a": program, "/b": program}).read_bytes() == first
    assert static("y:dev", program, tmp_path / "c.tar", extra={"/a": program, "/b": program}).read_bytes() != first


def test_the_architecture_is_the_programs_own(tmp_path: Path) -> None:
    program = a_program(tmp_path / "program", machine=183)
    config, layer = unpack(static("x:dev", program, tmp_path / "x.tar"), tmp_path / "unpacked")
    layer.close()
    assert config["architecture"] == "arm64"


@pytest.mark.parametrize("head", [b"", b"#!/bin/sh\necho no program at all", b"\x7fELF\x01\x01".ljust(40, b"\0")])
def test_what_is_no_64_bit_program_is_refused(tmp_path: Path, head: bytes) -> None:
    script = tmp_path / "script"
    script.write_bytes(head)
    with pytest.raises(ArchiveError, match="no 64-bit Linux program"):
        static("x:dev", script, tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize("user", ["root", "", "65532:65532", "-1"])
def test_a_user_that_is_no_number_is_refused(program: Path, tmp_path: Path, user: str) -> None:
    with pytest.raises(ArchiveError, match="number"):
        static("x:dev", program, tmp_path / "x.tar", user=user)


@pytest.mark.parametrize("path", ["etc/x", "/", "/../etc/x"])
def test_an_extra_file_needs_an_absolute_path(program: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(ArchiveError, match="absolute path"):
        static("x:dev", program, tmp_path / "x.tar", extra={path: program})


def test_a_failed_write_leaves_the_old_archive_and_nothing_else(program: Path, tmp_path: Path) -> None:
    out = static("x:dev", program, tmp_path / "out" / "x.tar")
    before = out.read_bytes()
    with pytest.raises(FileNotFoundError):
        static("x:dev", program, out, extra={"/a": tmp_path / "missing"})
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]
