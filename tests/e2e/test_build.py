"""Builds of the bare cluster's programs: when they are made again, and that half a build is never found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.cluster.bare import build as building
from e2e.cluster.bare.build import MODULES_BUILT, Module, build, build_all, key
from e2e.cluster.places import MODULES
from e2e.cluster.provider import ClusterError
from tests.e2e.recorder import Recorder

SERVER = Module("server", {"example.test/server/v3": "server", "example.test/cmd/probe": "probe"})


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the module `server`."""
    directory = tmp_path / "modules" / "server"
    directory.mkdir(parents=True)
    (directory / "go.mod").write_text("module server\n")
    (directory / "go.sum").write_text("one\n")
    monkeypatch.setattr(building, "MODULES", tmp_path / "modules")
    return directory


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def compiler(*binaries: str, config: Path | None = None, message: str = "") -> Recorder:
    """Go: writes these binaries, then fails when there is a message."""

    def answer(words: tuple[str, ...]) -> str:
        if words[:2] == ("go", "list"):
            return json.dumps({"Path": words[-1], "Dir": str(config)})
        out = Path(words[words.index("-o") + 1])
        for name in binaries:
            (out / name).write_text(f"binary {name}")
        if message:
            raise ClusterError(message)
        return ""

    return Recorder(answer)


def everything(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_every_file_of_a_module_and_everything_asked_of_the_compiler_is_in_its_key(source: Path) -> None:
    keys = [key(SERVER)]
    (source / "go.mod").write_text("module server\n\nrequire example.test/x v1.0.1\n")
    keys.append(key(SERVER))
    (source / "go.sum").write_text("two\n")
    keys.append(key(SERVER))
    (source / "main.go").write_text("package main\n")
    keys.append(key(SERVER))
    (source / "main.go").rename(source / "other.go")
    keys.append(key(SERVER))
    keys.append(key(Module("server", {**SERVER.programs, "example.test/cmd/more": "more"})))
    keys.append(key(Module("server", SERVER.programs, {"example.test/version.text": "v2"})))
    keys.append(key(Module("server", SERVER.programs, configs={"server": "example.test/server"})))
    assert len(set(keys)) == len(keys)


def test_a_key_does_not_change_by_itself(source: Path) -> None:
    before = key(SERVER)
    (source / "go.sum").write_text((source / "go.sum").read_text())
    assert key(Module("server", dict(SERVER.programs))) == before


def test_a_build_is_one_command_in_the_modules_directory(source: Path, kept: Path) -> None:
    runner = compiler("server", "probe")
    module = Module("server", SERVER.programs, {"example.test/version.text": "v2", "example.test/version.date": "now"})
    place = build(module, kept, runner)
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        "server": "binary server",
        "probe": "binary probe",
    }
    (call,) = runner.calls
    assert call.words[-2:] == tuple(SERVER.programs)
    assert "-s -w -X example.test/version.text=v2 -X example.test/version.date=now" in call.words
    assert call.cwd == source
    assert call.env["CGO_ENABLED"] == "0"


def test_what_is_built_is_not_built_again_until_its_key_changes(source: Path, kept: Path) -> None:
    first = build(SERVER, kept, compiler("server", "probe"))
    assert build(SERVER, kept, compiler(message="built again")) == first
    (source / "go.sum").write_text("two\n")
    second = build(SERVER, kept, compiler("server", "probe"))
    assert second != first
    assert [path.name for path in (kept / "bin").iterdir()] == [second.name]


def test_a_build_that_fails_leaves_nothing_and_what_was_there(source: Path, kept: Path) -> None:
    first = build(SERVER, kept, compiler("server", "probe"))
    (source / "go.sum").write_text("two\n")
    with pytest.raises(ClusterError, match="undefined: x"):
        build(SERVER, kept, compiler("server", message="undefined: x"))
    assert everything(kept / "bin") == [first.name, f"{first.name}/probe", f"{first.name}/server"]
    assert build(SERVER, kept, compiler("server", "probe")).name == f"server-{key(SERVER)}"


def test_a_build_without_one_of_its_programs_does_not_count(source: Path, kept: Path) -> None:
    with pytest.raises(ClusterError, match="left no probe"):
        build(SERVER, kept, compiler("server"))
    assert everything(kept / "bin") == []


def test_a_build_whose_configuration_cannot_be_found_leaves_nothing(source: Path, kept: Path, tmp_path: Path) -> None:
    module = Module("server", SERVER.programs, configs={"server": "example.test/server"})
    with pytest.raises(FileNotFoundError):
        build(module, kept, compiler("server", "probe", config=tmp_path / "nowhere"))
    assert everything(kept / "bin") == []


@pytest.mark.parametrize(
    ("package", "made"),
    [("example.test/cmd/webhook", "webhook"), ("example.test/etcd/v3", "etcd"), ("example.test/v2/cmd/vet", "vet")],
)
def test_a_binary_is_called_what_the_module_says_whatever_go_calls_it(
    package: str, made: str, source: Path, kept: Path
) -> None:
    place = build(Module("server", {package: "ours"}), kept, compiler(made))
    assert [path.name for path in place.iterdir()] == ["ours"]


def test_configuration_is_kept_beside_the_binaries_and_may_be_written(source: Path, kept: Path, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    (upstream / "config" / "core").mkdir(parents=True)
    (upstream / "config" / "core" / "one.yaml").write_text("kind: One\n")
    (upstream / "config" / "core" / "one.yaml").chmod(0o444)
    for directory in (upstream / "config" / "core", upstream / "config"):
        directory.chmod(0o555)  # as Go's module cache has them
    module = Module("server", SERVER.programs, configs={"knative": "example.test/knative"})
    runner = compiler("server", "probe", config=upstream)
    place = build(module, kept, runner)
    assert runner.calls[-1].words == ("go", "list", "-m", "-json", "example.test/knative")
    copied = place / "config" / "knative" / "core" / "one.yaml"
    assert copied.read_text() == "kind: One\n"
    modes = {path.stat().st_mode & 0o777 for path in (place, *place.rglob("*")) if path.is_dir()}
    assert modes == {0o755}
    assert copied.stat().st_mode & 0o200


def test_every_module_of_the_cluster_is_pinned_and_built(kept: Path) -> None:
    names = {module.name for module in MODULES_BUILT}
    assert names == {path.name for path in MODULES.iterdir()}
    assert len(names) == len(MODULES_BUILT)
    for module in MODULES_BUILT:
        assert (MODULES / module.name / "go.mod").is_file()
        # Only a program of the standard library alone has nothing to pin.
        assert (MODULES / module.name / "go.sum").is_file() or list(module.programs) == ["."]

    def answer(words: tuple[str, ...]) -> str:
        if words[:2] == ("go", "list"):
            (kept / "config").mkdir(exist_ok=True)
            return json.dumps({"Dir": str(kept)})
        out = Path(words[words.index("-o") + 1])
        for module in MODULES_BUILT:
            for program in module.programs.values():
                (out / program).touch()
        return ""

    kept.mkdir()
    assert set(build_all(kept, Recorder(answer))) == names


def test_kubernetes_is_told_its_version(kept: Path) -> None:
    (k8s,) = [module for module in MODULES_BUILT if module.name == "k8s"]
    told = {name.rsplit(".", 1)[1]: value for name, value in k8s.variables.items()}
    assert f"k8s.io/kubernetes {told['gitVersion']}\n" in (MODULES / "k8s" / "go.mod").read_text()
    assert told["gitVersion"].startswith(f"v{told['gitMajor']}.{told['gitMinor']}.")
