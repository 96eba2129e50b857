"""Stages for a local service."""

from __future__ import annotations

from pathlib import Path

import pytest

from knative_sponge.local.cpu.control import FakeCpu
from tests.local.runner_kit import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, FakeCpu(limit_cores=8.0, period_s=0.02, used_s=3.0))


@pytest.fixture
def real(tmp_path: Path) -> Stage:
    return Stage(tmp_path, None)
