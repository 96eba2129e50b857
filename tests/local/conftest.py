"""Setups of a local service: with a fake control of cores, and with a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.fake_cpu import FakeCpu
from tests.local.service_setup import ServiceSetup


@pytest.fixture
def service_setup(tmp_path: Path) -> ServiceSetup:
    return ServiceSetup(tmp_path, FakeCpu(limit_cores=8.0, period_s=0.02, used_s=3.0))


@pytest.fixture
def real_cpu_setup(tmp_path: Path) -> ServiceSetup:
    return ServiceSetup(tmp_path, None)
