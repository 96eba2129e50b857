"""Which programs a build runs, and what it leaves behind; the programs themselves are replaced."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from e2e.cluster import buildah, imaging, rootfs
from e2e.cluster.provider import ClusterError


class Tools:
    """Writes down each command; writes the files that the real programs would."""

    def __init__(self, failing: str = "") -> None:
        self.commands: list[list[str]] = []
        self.env: list[dict[str, str]] = []
        self.images = ""
        self.failing = failing

    def __call__(
        self,
        args: Sequence[str | Path],
        *,
        timeout_s: float = 60.0,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        words = [str(arg) for arg in args]
        self.commands.append(words)
        self.env.append(dict(env or {}))
        if self.failing and self.failing in words:
            raise ClusterError(f"{self.failing} failed")
        if words[0] == "mmdebstrap" or "save" in words:
            Path(words[-1] if words[0] == "mmdebstrap" else words[words.index("-o") + 1]).write_bytes(b"tar")
        for word in words:
            if word.startswith("docker-archive:"):
                Path(word.split(":")[1]).write_bytes(b"tar")
        return (
            self.images
            if "images" in words
            else "global.timeout='7'\nglobal.index-url='https://a/b'\n:env:.timeout='9'\n"
        )

    def ran(self, *words: str) -> bool:
        return any(set(words) <= set(command) for command in self.commands)


@pytest.fixture(autouse=True)
def _a_machine_with_buildah_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("STORAGE_DRIVER", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "docker" else f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_an_image_is_built_once_and_replaces_its_forerunner(tmp_path: Path) -> None:
    tools = Tools()
    forerunner = tmp_path / "affine-0123456789abcdef.tar"
    forerunner.write_bytes(b"old")
    (tmp_path / "events-0123456789abcdef.tar").write_bytes(b"other")
    first = imaging.build("affine", out_dir=tmp_path, runner=tools)
    assert first.read_bytes() == b"tar"
    assert not forerunner.exists()
    assert {path.name for path in tmp_path.glob("*.tar")} == {first.name, "events-0123456789abcdef.tar"}
    count = len(tools.commands)
    assert imaging.build("affine", out_dir=tmp_path, runner=tools) == first
    assert len(tools.commands) == count


def test_a_failed_build_leaves_nothing_half_made(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="push failed"):
        imaging.build("affine", out_dir=tmp_path / "out", runner=Tools(failing="push"))
    assert list((tmp_path / "out").iterdir()) == []


def test_buildah_keeps_to_its_own_storage_and_to_the_base_made_here(tmp_path: Path) -> None:
    tools = Tools()
    imaging.build("affine", out_dir=tmp_path, runner=tools)
    storage = tmp_path / "cache" / "knative-sponge" / "e2e" / "buildah-overlay"
    for command, env in zip(tools.commands, tools.env, strict=True):
        if command[0] == "buildah":
            assert command[command.index("--root") + 1] == str(storage / "root")
            assert command[command.index("--runroot") + 1] == str(storage / "run")
            assert env["TMPDIR"] == str(storage / "tmp")
            assert env["BUILDAH_ISOLATION"] == "chroot"
    assert tools.ran("mmdebstrap")
    assert tools.ran("build", f"BASE=localhost/knative-sponge-python:bookworm-{rootfs.recipe()}")
    assert tools.ran("rmi", "dev.local/knative-sponge/affine:dev")


def test_a_base_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    tools = Tools()
    tools.images = f"localhost/knative-sponge-python:bookworm-{rootfs.recipe()}\n"
    imaging.build("affine", out_dir=tmp_path, runner=tools)
    assert not tools.ran("mmdebstrap")


def test_docker_is_used_where_its_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    tools = Tools()
    assert imaging.build("affine", out_dir=tmp_path, runner=tools).read_bytes() == b"tar"
    assert tools.ran("docker", "save", "dev.local/knative-sponge/affine:dev")
    assert not tools.ran("buildah")
    silent = Tools(failing="version")
    imaging.build("events", out_dir=tmp_path, runner=silent)
    assert not silent.ran("docker", "build")


def test_the_machines_way_to_packages_is_lent_to_the_build_without_its_paths(tmp_path: Path) -> None:
    options = buildah.secrets(tmp_path, Tools())
    assert options[:2] == ["--secret", f"id=pip.conf,src={tmp_path / 'pip.conf'}"]
    settings = (tmp_path / "pip.conf").read_text().splitlines()
    assert settings[0] == "[global]"
    assert {"timeout = 9", "index-url = https://a/b"} <= set(settings)
    assert "find-links" not in "".join(settings)


def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ClusterError, match="apt-get install buildah"):
        imaging.build("affine", out_dir=tmp_path, tool="buildah", runner=Tools())
    with pytest.raises(ClusterError, match="apt-get install mmdebstrap"):
        rootfs.root_file_system(tmp_path / "rootfs.tar", Tools())


def test_a_base_is_not_tried_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="root"):
        rootfs.root_file_system(tmp_path / "rootfs.tar", Tools())
