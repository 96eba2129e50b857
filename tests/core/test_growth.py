"""How far a pod grows at once: at least to its need, never beyond what is to spare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.growth import GrowthRules, grown

CORES = st.floats(0.01, 64.0)


@given(CORES, CORES, CORES, st.floats(-4.0, 64.0), st.floats(1.0, 4.0), st.floats(0.0, 4.0), st.floats(0.0, 1.0))
def test_it_lies_between_the_need_and_what_there_is(
    present: float, rise: float, more: float, spare: float, factor: float, most: float, share: float
) -> None:
    need = present + rise
    high = need + more
    size = grown(present, need, high, spare, GrowthRules(factor=factor, most=most, share=share))
    assert need <= size <= high + 1e-9
    assert size - need <= max(spare, 0.0) * share + 1e-9


@pytest.mark.parametrize(
    ("present", "need", "high", "spare", "size"),
    [
        pytest.param(0.25, 0.26, 4.0, 9.0, 0.75, id="three times the size"),
        pytest.param(0.25, 0.75, 4.0, 9.0, 1.25, id="the rise goes on"),
        pytest.param(8.0, 8.5, 64.0, 99.0, 9.0, id="a large pod grows by a core more at most"),
        pytest.param(0.25, 0.75, 1.0, 9.0, 1.0, id="its own bound"),
        pytest.param(0.25, 0.75, 4.0, 0.4, 0.95, id="half of what is to spare"),
        pytest.param(0.25, 0.75, 4.0, -1.0, 0.75, id="nothing to spare"),
    ],
)
def test_by_how_much(present: float, need: float, high: float, spare: float, size: float) -> None:
    assert grown(present, need, high, spare, GrowthRules()) == size


@pytest.mark.parametrize(
    "wrong", [{"factor": 0.9}, {"most": -1.0}, {"further": -1.0}, {"share": 1.1}, {"hold_s": -1.0}]
)
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="impossible rules"):
        GrowthRules(**wrong)
