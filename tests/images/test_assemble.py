"""What of Python gets into an image: enough to run, and nothing that only people and builders use."""

import compileall
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from images import assemble


def test_builders_files_are_deleted_and_programs_kept(tmp_path: Path) -> None:
    for name in ("p/a.py", "p/a.pyi", "p/x.so", "p/x.pyx", "p/tests/test_a.py", "p/py.typed", "p-1.dist-info/METADATA"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assemble.prune(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"p/a.py", "p/x.so", "p/py.typed", "p-1.dist-info/METADATA"}


def test_extensions_for_terminals_and_tests_stay_behind() -> None:
    names = [
        "_curses.cpython-311-x86_64-linux-gnu.so",
        "_testcapi.so",
        "readline.so",
        "_ssl.so",
        "_asyncio.so",
        "_queue.so",
    ]
    assert assemble.unused_of_library("/usr/lib/python3.11/lib-dynload", names) == set(names[:3])
    assert assemble.unused_of_library("/usr/lib/python3.11", ["test", "asyncio", "config-3.11-x"]) == {
        "test",
        "config-3.11-x",
    }


@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd on this system")
def test_all_libraries_of_the_interpreter_are_found(tmp_path: Path) -> None:
    found = list(assemble.shared_libraries([Path(sys.executable).resolve()], within=tmp_path))
    assert len({file.name for file in found}) == len(found)
    assert all(file.is_file() for file in found)
    assert {file.name.split(".so")[0] for file in found} >= {"libc", "libm", "libgcc_s"}


def test_a_library_that_is_missing_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = subprocess.CompletedProcess([], 0, "x:\n\tlibgone.so.1 => not found\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: listing)
    with pytest.raises(SystemExit, match="libgone"):
        list(assemble.shared_libraries([tmp_path], within=tmp_path))


def package(folder: Path, name: str, *files: str, metadata: str = "") -> None:
    """An installed package without code."""
    about = folder / f"{name}-1.dist-info"
    for file in files:
        path = folder / file.format(about=about.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("its licence")
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(f"Name: {name}\n{metadata}\n\nLicense: of the description\n")
    (about / "RECORD").write_text("".join(f"{file.format(about=about.name)},sha256=x,1\n" for file in files))


def test_every_package_in_an_image_has_its_licence_there(tmp_path: Path) -> None:
    package(tmp_path, "one", "{about}/licenses/LICENSE")
    package(tmp_path, "other", "other/LICENSE.txt")
    package(tmp_path, "named", metadata="License: Apache 2.0")
    apache = tmp_path / "apache"
    apache.write_text("Apache License")
    assemble.notices_of_packages(tmp_path, apache)
    assert not (tmp_path / "one-1.dist-info/LICENSE").exists()
    assert (tmp_path / "named-1.dist-info/LICENSE").read_text() == "Apache License"
    package(tmp_path, "unknown", metadata="License: Apache-like")
    (tmp_path / "unknown-1.dist-info/METADATA").write_text("Name: unknown\nLicense: MIT\n")
    with pytest.raises(SystemExit, match="unknown"):
        assemble.notices_of_packages(tmp_path, apache)


@pytest.mark.parametrize("lock", ["proxy", "autoscaler", "ocr"])
def test_the_packages_of_our_images_have_licences(lock: str, tmp_path: Path) -> None:
    installed = {metadata.metadata["Name"].lower().replace("_", "-"): metadata for metadata in distributions()}
    text = (Path(__file__).parents[2] / "requirements" / f"{lock}.txt").read_text()
    for name in re.findall(r"^([-\w.]+)==", text, re.MULTILINE):
        found = installed.get(name.lower().replace("_", "-"))
        if found is None:
            continue  # for another version of Python, or an image that this environment does not have
        files = [file for file in found.files or () if assemble.LICENCE.search(file.name)]
        assert files or assemble.APACHE.search(str(found.metadata)), name


def test_what_the_system_gives_comes_with_its_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doc, licences = tmp_path / "doc", tmp_path / "common-licenses"
    for path in (doc / "libc6/copyright", doc / "gcc-12-base/copyright", licences / "GPL-3"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.parent.name)
    monkeypatch.setattr(assemble, "DOC", doc)
    monkeypatch.setattr(assemble, "COMMON_LICENCES", licences)
    answers = {
        "--search": "libc6:amd64: /lib/x/libc.so.6\nlibgcc-s1:amd64: /lib/x/libgcc_s.so.1\nlibz:amd64: /lib/x/libz.so.1\n"
        "diversion by a from: /lib/x/libc.so.6\n",
        "--show": "libc6 glibc\nlibgcc-s1 gcc-12\ngcc-12-base gcc-12\nlibz zlib\n",
    }
    monkeypatch.setattr(subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 1, answers[words[1]]))
    root = tmp_path / "root"
    assemble.notices_of_system([Path("/usr/lib/x/libc.so.6"), Path("/lib/x/libgcc_s.so.1")], root)
    below = root / tmp_path.relative_to("/")
    assert (below / "doc/libc6/copyright").read_text() == "libc6"
    assert (below / "doc/gcc-12-base/copyright").read_text() == "gcc-12-base", "of a package of the same source"
    assert (below / "common-licenses/GPL-3").is_file()
    for strange in ("libodd.so.1", "libz.so.1"):
        with pytest.raises(SystemExit, match=strange):
            assemble.notices_of_system([Path("/lib/x") / strange], root)


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="not Debian's kin")
def test_the_package_of_a_library_is_found() -> None:
    libraries = [Path("/lib/x86_64-linux-gnu/libc.so.6"), Path("/usr/lib/x86_64-linux-gnu/libc.so.6")]
    there = [file for file in libraries if file.exists()]
    assert set(assemble.owners_of(there).values()) <= {"libc6"}
    assert len(assemble.owners_of(there)) == len(there)


def test_no_image_is_made_without_its_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, done = tmp_path / "libx.so.1", []
    library.touch()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    for name in ("copy", "copytree"):
        monkeypatch.setattr(shutil, name, lambda *_, **__: None)
    monkeypatch.setattr(compileall, "compile_dir", lambda *_, **__: True)
    monkeypatch.setattr(assemble, "shared_libraries", lambda *_, **__: iter([library]))
    monkeypatch.setattr(assemble, "notices_of_packages", lambda folder, _apache: done.append(folder))
    monkeypatch.setattr(assemble, "notices_of_system", lambda files, _root: done.extend(files))
    (tmp_path / "root").mkdir()
    assemble.main(tmp_path / "root", "package")
    assert done == [tmp_path / "root/app", Path(sys.executable).resolve(), library]
