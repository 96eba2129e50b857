"""Documentation that can be checked against the code is."""

from __future__ import annotations

import re
from pathlib import Path

from knative_sponge.core.batching.deadline import CLAIM_HEADERS, ClientBudget, deadline_of
from knative_sponge.errors import Reason
from knative_sponge.settings import ServingSettings
from knative_sponge.settings import proxy as proxy_settings

DOCS = Path(__file__).parent.parent / "docs"


def test_every_reason_is_explained() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \| (\d+)", (DOCS / "deadlines.md").read_text(), re.MULTILINE)
    assert {name for name, _ in table} == set(Reason)
    assert all(Reason(name).status == int(status) for name, status in table)


def test_every_deadline_header_is_explained() -> None:
    text = (DOCS / "deadlines.md").read_text()
    for header in CLAIM_HEADERS:
        assert header.decode() in text


def test_every_client_budget_is_explained() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| ([^|\d]+) \| ([^|]*) \|$", (DOCS / "deadlines.md").read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == list(ClientBudget)
    for name, answered, sized in rows:
        for slo_s, claim_ms in ((1.0, b"400"), (1.0, b"3000")):
            found = deadline_of(
                {b"x-sponge-slo-ms": claim_ms},
                now=0.0,
                wall_now_s=0.0,
                slo_s=slo_s,
                timeout_s=60.0,
                max_network_share=0.9,
                client_budget=ClientBudget(name),
            )
            claim_s = float(claim_ms) / 1000
            words = {
                "the client's budget, at most `slo`": min(claim_s, slo_s),
                "the client's budget, longer or shorter than `slo`": claim_s,
                "the same": found.at_s,
                "`slo`": slo_s,
            }
            assert (found.at_s, found.sizing_at_s) == (words[answered], words[sized])


def test_every_setting_is_explained_with_its_default() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]*) \|", (DOCS / "settings.md").read_text(), re.MULTILINE)
    defaults = ServingSettings().effective()
    assert [name for name, _ in rows] == list(ServingSettings.names())
    for name, default in rows:
        assert default.strip(" `") == defaults.get(name, "unset")


def test_every_variable_of_the_proxy_is_explained() -> None:
    _, _, section = (DOCS / "design.md").read_text().partition("\n### 5.4 ")
    listed = set(re.findall(r"`(SPONGE_[A-Z0-9_]+)`", section.partition("\n## ")[0]))
    assert {name for name in proxy_settings._OPTIONAL if name.startswith("SPONGE_")} <= listed
