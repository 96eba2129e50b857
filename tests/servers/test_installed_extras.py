"""Each extra as a user installs it: alone, in an environment of its own. `tests/cli/test_extras.py` needs no installing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from knative_sponge.cli.main import VERBS
from tests.cli.test_extras import EXTRAS, USES

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = {"proxy": "knative_sponge.proxy.__main__", "controller": "knative_sponge.controller.__main__"}

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("SPONGE_SERVERS"), reason="make servers installs each extra"),
]


def called(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd="/", check=False)


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra != "dev"])
def test_an_extra_alone_is_enough_for_its_verbs(extra: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copytree(ROOT / "knative_sponge", tree / "knative_sponge", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"{tree}[{extra}]"]
    subprocess.run(pip, check=True, timeout=800)
    if extra in PROGRAMS:
        imported = called(str(folder / "bin" / "python"), "-c", f"import {PROGRAMS[extra]}")
        assert imported.returncode == 0, imported.stderr
    sponge = str(folder / "bin" / "sponge")
    for verb, (own, argv, status, words) in USES.items():
        if own == extra:
            assert called(sponge, verb, "--help").returncode == 0
            failed = called(sponge, verb, *argv)
            assert (failed.returncode, "Traceback" in failed.stderr) == (status, False), failed.stderr
            assert words in failed.stderr.splitlines()[-1]
    assert called(sponge, "--help").returncode == 0
    assert set(USES) == set(VERBS)
