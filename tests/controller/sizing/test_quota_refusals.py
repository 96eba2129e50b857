"""How long a quota's refusal keeps the pods of its namespace from taking cores ahead of need."""

from __future__ import annotations

from knative_sponge.controller.sizing.quota_refusals import QuotaRefusals


def test_a_namespace_is_tight_for_ten_minutes_after_its_last_refusal() -> None:
    refusals = QuotaRefusals()
    assert not refusals.tight("shop", 0.0)
    refusals.refused("shop", 100.0)
    refusals.refused("shop", 150.0)
    assert [refusals.tight("shop", at_s) for at_s in (150.0, 700.0, 750.0, 750.1, 760.0)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert not refusals.tight("office", 150.0)
    refusals.refused("shop", 800.0)
    assert refusals.tight("shop", 801.0)
