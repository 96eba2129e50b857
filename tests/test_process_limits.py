"""What the system allows: memory as cgroups of both versions show it, and open files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from knative_sponge.process_limits import HeapTrim, memory_limit

UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "419430400\n"}, 419430400),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/pod/c\n", {"pod/c/memory.max": "max", "pod/memory.max": "300"}, 300),
        ("0::/pod/c\n", {"pod/c/memory.max": "200", "pod/memory.max": "300"}, 200),
        ("5:cpu,memory:/\n", {"memory/memory.limit_in_bytes": "1000\n"}, 1000),
        ("5:memory:/kubepods/x\n", {"memory/memory.limit_in_bytes": "1000"}, 1000),
        ("5:memory:/a\n", {"memory/memory.limit_in_bytes": UNLIMITED, "memory/a/memory.limit_in_bytes": "7"}, 7),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": UNLIMITED}, None),
        ("", {}, None),
        ("0::/\n", {"memory.max": "much"}, None),
    ],
    ids=[
        "v2, its own namespace", "v2, no limit", "v2, the pod's", "v2, the container's", "v1", "v1, mounted at its own",
        "v1, the container's", "v1, no limit", "nothing to see", "nonsense",
    ],
)  # fmt: skip
def test_the_containers_memory_limit_is_found(
    tmp_path: Path, own: str, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        place = tmp_path / "cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (tmp_path / "own").write_text(own)
    assert memory_limit(tmp_path / "cgroup", tmp_path / "own") == limit


def test_a_system_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path, tmp_path / "own") is None


def test_the_soft_limit_of_files_becomes_the_hard_one() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200));"
        "from knative_sponge.process_limits import open_files, raise_open_files;"
        "print(open_files(), raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["100", "200", "200", "200"]


def test_the_heap_is_trimmed_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    clock = [0.0]
    trims = []

    class Library:
        def malloc_trim(self, pad: int) -> None:
            trims.append(clock[0])

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    trim = HeapTrim(lambda: clock[0])
    for clock[0] in (0.0, 0.5, 0.9, 1.0, 1.5):
        trim()
    assert trims == [0.0, 1.0]
