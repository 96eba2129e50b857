"""Documentation that can be checked against the code is."""

from __future__ import annotations

import re
from pathlib import Path

from knative_sponge.core.batching.deadline import CLAIM_HEADERS
from knative_sponge.errors import Reason
from knative_sponge.settings import ServingSettings

DOCS = Path(__file__).parent.parent / "docs"


def test_every_reason_is_explained() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \| (\d+)", (DOCS / "deadlines.md").read_text(), re.MULTILINE)
    assert {name for name, _ in table} == set(Reason)
    assert all(Reason(name).status == int(status) for name, status in table)


def test_every_deadline_header_is_explained() -> None:
    text = (DOCS / "deadlines.md").read_text()
    for header in CLAIM_HEADERS:
        assert header.decode() in text


def test_every_setting_is_explained_with_its_default() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]*) \|", (DOCS / "settings.md").read_text(), re.MULTILINE)
    defaults = ServingSettings().effective()
    assert [name for name, _ in rows] == list(ServingSettings.names())
    for name, default in rows:
        assert default.strip(" `") == defaults.get(name, "unset")
