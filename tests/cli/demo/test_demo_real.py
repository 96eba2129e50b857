"""The whole demo once, small: real model server, real proxies, real load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from knative_sponge.cli.demo.command import main

SERVER = Path(__file__).parents[3] / "examples" / "ocr-server"


def test_a_small_demo_serves_with_every_strategy_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    argv = ["--server", str(SERVER), "--out", str(out), "--seconds", "1", "--profile-seconds", "0.5"]
    assert main([*argv, "--rate", "8", "--slo", "5s", "--arrivals", "uniform"]) == 0
    strategies = json.loads((out / "report.json").read_text())["strategies"]
    assert list(strategies) == ["sponge", "static-mean", "fifo", "static-max"]
    for one in strategies.values():
        assert one["requests"] == 8
        assert one["mean_batch"] >= 1  # the proxy says so of every request it batched
        assert one["core_seconds"] == pytest.approx(one["mean_cores"])
    assert strategies["fifo"]["mean_cores"] == pytest.approx(strategies["sponge"]["mean_cores"], abs=0.02)
    assert strategies["static-max"]["mean_cores"] >= strategies["sponge"]["mean_cores"]
    said = capsys.readouterr().out
    assert re.search(r"8\s+photographs", said)
    assert (out / "report.html").is_file()
