"""How far a pod grows at once: at least to its need, never beyond what is to spare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.growth import GrowthRules, grown, shrunk

CORES = st.floats(0.01, 64.0)


@given(
    CORES,
    CORES,
    CORES,
    st.floats(-4.0, 64.0),
    st.floats(1.0, 4.0),
    st.floats(0.0, 4.0),
    st.floats(0.0, 1.0),
    st.booleans(),
)
def test_it_lies_between_the_need_and_what_there_is(
    present: float, rise: float, more: float, spare: float, factor: float, most: float, share: float, late: bool
) -> None:
    need = present + rise
    high = need + more
    size = grown(present, need, high, spare, GrowthRules(factor=factor, most=most, share=share), late=late)
    assert need <= size <= high + 1e-9
    assert size - need <= max(spare, 0.0) * (1.0 if late else share) + 1e-9


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
    assert grown(present, need, high, spare, GrowthRules(), late=False) == size


def test_where_rows_would_miss_it_is_a_core_more_or_all_there_is() -> None:
    assert grown(0.25, 0.26, 4.0, 9.0, GrowthRules(), late=True) == 1.25
    assert grown(0.25, 0.26, 4.0, 0.5, GrowthRules(), late=True) == 0.76


@given(CORES, st.floats(0.001, 1.0), st.floats(-1.0, 64.0))
def test_a_shrink_lies_between_the_need_and_the_larger_of_half_and_a_quarter_more(
    present: float, share: float, spare: float
) -> None:
    need = share * present
    size = shrunk(present, need, spare, GrowthRules())
    assert need <= size <= min(present, max(1.25 * need, present / 2)) + 1e-9
    assert size - need <= max(spare, 0.0) + 1e-9


def test_a_shrink_is_to_half_where_there_are_cores_to_spare() -> None:
    assert shrunk(1.0, 0.2, 9.0, GrowthRules()) == 0.5
    assert shrunk(1.0, 0.2, 0.1, GrowthRules()) == 0.3
    assert shrunk(1.0, 0.7, 9.0, GrowthRules()) == 0.875, "a quarter more than the need"
    assert shrunk(1.0, 0.85, 9.0, GrowthRules()) == 1.0, "then it may stay as it is"
    assert shrunk(1.0, 0.7, 0.1, GrowthRules()) == 0.8
    assert shrunk(1.0, 0.7, 9.0, GrowthRules(margin=1.0)) == 0.7


@pytest.mark.parametrize(
    "wrong",
    [
        {"factor": 0.9},
        {"most": -1.0},
        {"extrapolation": -1.0},
        {"share": 1.1},
        {"least": 1.0},
        {"margin": 0.9},
        {"hold_s": -1.0},
        {"max_lookback_s": -1.0},
    ],
)
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="impossible rules"):
        GrowthRules(**wrong)


@pytest.mark.parametrize(
    "bound",
    [{"factor": 1.0}, {"most": 0.0}, {"extrapolation": 0.0}, {"share": 0.0}, {"share": 1.0}, {"least": 0.0}, {"margin": 1.0},
     {"hold_s": 0.0}, {"max_lookback_s": 0.0}],
)  # fmt: skip
def test_rules_may_be_at_their_bounds(bound: dict[str, float]) -> None:
    GrowthRules(**bound)
