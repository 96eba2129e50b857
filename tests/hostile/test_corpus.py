"""What the fuzzer begins with, and what it once found: read or refused, at a cost in proportion to its length."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fuzz.__main__ import TARGETS
from fuzz.engine.replay import replay
from fuzz.engine.session import CORPUS

SEEDS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def test_every_target_has_seeds_of_its_own() -> None:
    assert {seed.parent.name for seed in SEEDS} == set(TARGETS)
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} == set(TARGETS)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.parent.name}-{seed.name}")
def test_a_known_input_costs_what_it_may_and_means_one_thing(seed: Path) -> None:
    replay(importlib.import_module(f"fuzz.{seed.parent.name}"), seed.read_bytes())
