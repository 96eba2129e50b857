"""The `sponge` command before any verb does its work."""

from __future__ import annotations

import subprocess
import sys

import pytest

import knative_sponge
from knative_sponge.cli.main import VERBS, main


def test_without_a_verb_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize(
    ("argv", "code", "shown"),
    [
        (["--version"], 0, f"sponge {knative_sponge.__version__}\n"),
        (["--help"], 0, "verbs:"),
        (["squeeze"], 2, "invalid choice: 'squeeze'"),
        (["--squeeze"], 2, "unrecognized arguments"),
    ],
)
def test_what_is_no_verb(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, shown: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == code
    output = capsys.readouterr()
    assert shown in output.out + output.err


def test_starting_it_imports_no_verb_and_nothing_heavy() -> None:
    code = "import knative_sponge.cli.main, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "rich", "asyncio", "starlette", "uvicorn", "onnxruntime", "PIL", "matplotlib"}
    assert not heavy & set(loaded)
    assert not {verb.module for verb in VERBS.values()} & set(loaded)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"sponge {verb}" in capsys.readouterr().out


def test_a_setting_error_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--slo", "soon", "--", "server"]) == 2
    assert capsys.readouterr().err == (
        "sponge run: --slo: 'soon' is not allowed; expected a duration above zero, such as 500ms or 2s\n"
    )


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(VERBS, "top", VERBS["top"]._replace(module="not_installed_anywhere.top"))
    assert main(["top"]) == 1
    shown = capsys.readouterr().err
    assert shown == "sponge top: needs not_installed_anywhere; in a checkout: pip install '.[cluster]'\n"
