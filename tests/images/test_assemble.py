"""What of Python gets into an image: enough to run, and nothing that only people and builders use."""

import shutil
import subprocess
import sys
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
