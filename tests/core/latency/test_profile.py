"""A latency model survives the way through JSON, and a malformed profile is refused by the name of the field."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import from_json, to_json
from knative_sponge.errors import ProfileError
from tests.core.profiles import measured, teach, wandering

CURVE = LatencyParams(gamma=0.02, delta=0.002, epsilon=0.01, eta=0.003)

sizes = st.tuples(st.integers(1, 40), st.floats(0.05, 64.0))
histories = st.lists(st.tuples(sizes, st.floats(0.001, 100.0)), max_size=40)
calm = st.lists(st.tuples(sizes, st.floats(0.95, 1.05)), max_size=20)


def through_text(model: LatencyModel) -> LatencyModel:
    return from_json(json.loads(json.dumps(to_json(model), allow_nan=False)))


def predictions(model: LatencyModel) -> list[float]:
    return [value for cores in (0.1, 1.0, 3.3, 16.0) for table in model.tables(cores, 40) for value in table]


def test_costs_survive_where_they_are_not_the_latency() -> None:
    model = LatencyModel(CURVE)
    for call in range(20):
        model.observe(Sample(1 + call % 4, 0.5, 0.04, rested_s=1.0), float(call))
    assert model.costs.params != model.params
    restarted = through_text(model)
    for cores in (0.1, 0.5, 1.0, 4.0):
        assert restarted.cost_table(cores, 8) == pytest.approx(model.cost_table(cores, 8), rel=1e-6)
    for _ in range(60):
        restarted.observe(Sample(1, 0.5, 0.03, rested_s=1.0), 30.0)
    assert restarted.cost_table(0.5, 1)[1] == pytest.approx(0.06, rel=0.1), "and learns on"


def test_without_a_quota_costs_are_no_part_of_a_profile() -> None:
    model = LatencyModel(CURVE, period_s=0.0)
    model.observe(Sample(1, 0.5, 0.04, rested_s=1.0), 0.0)
    assert "cost" not in to_json(model)
    assert model.cost_table(0.5, 8) == model.tables(0.5, 8)[0]


def test_a_broken_curve_of_costs_is_refused_by_name() -> None:
    document = {"version": 1, "params": dict.fromkeys(("gamma", "delta", "epsilon", "eta"), 0.01)}
    with pytest.raises(ProfileError, match=r"cost\.eta"):
        from_json({**document, "cost": {"gamma": 0.1, "delta": 0.0, "epsilon": 0.0, "eta": -1.0}})
    with pytest.raises(ProfileError, match="cost"):
        from_json({**document, "cost": dict.fromkeys(("gamma", "delta", "epsilon", "eta"), 0.0)})


@given(histories, st.none() | st.just(CURVE))
def test_a_model_restarted_from_its_profile_predicts_the_same(
    history: list[tuple[tuple[int, float], float]], prior: LatencyParams | None
) -> None:
    model = LatencyModel(prior)
    for (rows, cores), factor in history:
        model.observe(Sample(rows, cores, CURVE.latency_s(rows, cores) * factor), 1.0)

    restarted = through_text(model)

    assert predictions(restarted) == pytest.approx(predictions(model), rel=1e-9)
    assert restarted.last_sample_s is None


@given(calm, calm)
def test_a_model_restarted_from_its_profile_goes_on_learning_the_same(
    before: list[tuple[tuple[int, float], float]], after: list[tuple[tuple[int, float], float]]
) -> None:
    model = LatencyModel(CURVE)
    for (rows, cores), factor in before:
        model.observe(Sample(rows, cores, CURVE.latency_s(rows, cores) * factor), 1.0)
    restarted = through_text(model)

    for (rows, cores), factor in after:
        sample = Sample(rows, cores, CURVE.latency_s(rows, cores) * factor)
        model.observe(sample, 2.0)
        restarted.observe(sample, 2.0)

    assert predictions(restarted) == pytest.approx(predictions(model), rel=1e-7)


def test_what_a_profile_knows_is_not_thrown_away_by_the_first_sample() -> None:
    rng = random.Random(1)
    model = teach(LatencyModel(), measured(CURVE.latency_s, wandering(200, rng), 0.05, rng))
    restarted = through_text(model)

    restarted.observe(Sample(2, 2.0, 10.0 * CURVE.latency_s(2, 2.0)), 0.0)

    assert restarted.predict_s(2, 2.0) < 1.2 * CURVE.latency_s(2, 2.0)


def test_a_profile_carries_no_levers() -> None:
    model = LatencyModel(CURVE, caution=3.0, threads=8)
    restarted = from_json(to_json(model), caution=0.0, period_s=0.0)

    assert restarted.cautious_s(4, 2.0) == restarted.predict_s(4, 2.0)


def test_the_present_curve_is_there_for_other_readers() -> None:
    model = LatencyModel(CURVE)
    model.observe(Sample(4, 2.0, 2.0 * CURVE.latency_s(4, 2.0)), 0.0)

    params = LatencyParams(**to_json(model)["params"])

    assert params.latency_s(4, 2.0) == pytest.approx(2.0 * CURVE.latency_s(4, 2.0))


@pytest.mark.parametrize("key", ["prior", "params"])
def test_a_profile_written_by_hand_needs_a_curve_only(key: str) -> None:
    model = from_json({"version": 1, key: {"gamma": 0.02, "delta": 0.002, "epsilon": 0.01, "eta": 0}})
    assert model.predict_s(2, 4.0) == LatencyParams(0.02, 0.002, 0.01, 0.0).latency_s(2, 4.0)

    model.observe(Sample(1, 1.0, 3.2), 0.0)

    assert model.predict_s(1, 1.0) == pytest.approx(3.2)


def learned() -> dict[str, Any]:
    model = LatencyModel(CURVE)
    for rows, cores in ((1, 1.0), (4, 2.0), (4, 2.0), (4, 2.0), (2, 8.0)):
        model.observe(Sample(rows, cores, CURVE.latency_s(rows, cores) * 1.1), 0.0)
    document: dict[str, Any] = json.loads(json.dumps(to_json(model)))
    return document


def put(*way: str | int, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in way[:-1]:
            document = document[step]
        document[way[-1]] = value

    return change


def drop(*way: str | int) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in way[:-1]:
            document = document[step]
        del document[way[-1]]

    return change


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop("version"), "version: missing"),
        (put("version", value=2), "version: 2 is not known"),
        (put("version", value="1"), "version: expected a whole number"),
        (put("prior", value=[1, 2]), "prior: expected an object"),
        (drop("prior", "eta"), "prior.eta: missing"),
        (put("prior", "gamma", value=-0.1), "prior.gamma: expected a number"),
        (put("prior", "gamma", value=True), "prior.gamma: expected a number"),
        (put("prior", "gamma", value=float("nan")), "prior.gamma: expected a number"),
        (put("prior", value=dict.fromkeys(("gamma", "delta", "epsilon", "eta"), 0.0)), "prior: latency parameters"),
        (put("prior", value=dict.fromkeys(("gamma", "delta", "epsilon", "eta"), 1e9)), "prior: one row on one core"),
        (put("samples", value=-1), "samples: expected a whole number"),
        (put("samples", value=2.5), "samples: expected a whole number"),
        (put("level", value=0), "level: expected a number"),
        (put("level", value="1"), "level: expected a number"),
        (drop("recent"), "recent: missing"),
        (put("recent", 3, value=None), r"recent\[3\]: expected a number"),
        (put("recent", 3, value=float("inf")), r"recent\[3\]: expected a number"),
        (put("recent", value=[0.0] * 13), "recent: expected 14 numbers"),
        (put("regions", value={}), "regions: expected a list"),
        (put("regions", 1, "cores", value=99), r"regions\[1\].cores: expected a whole number from -7 to 8"),
        (put("regions", 1, "evidence", 0, value=-1.0), r"regions\[1\].evidence\[0\]: expected a number"),
        (drop("regions", 0, "visits"), r"regions\[0\].visits: missing"),
        (drop("spread"), "spread: missing"),
        (put("spread", "square", value=-1), "spread.square: expected a number"),
        (put("spread", "regions", 0, "count", value="x"), r"spread.regions\[0\].count: expected a whole number"),
    ],
)
def test_a_malformed_profile_is_refused_by_the_name_of_the_field(damage: Callable[[Any], None], named: str) -> None:
    document = learned()
    from_json(document)
    damage(document)

    with pytest.raises(ProfileError, match=named):
        from_json(document)


@pytest.mark.parametrize("document", [None, [], "profile", 3])
def test_what_is_not_an_object_is_no_profile(document: Any) -> None:
    with pytest.raises(ProfileError, match="expected an object"):
        from_json(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=15) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.data())
def test_no_damage_gets_past_the_reader(data: st.DataObject) -> None:
    """Any one value replaced by any other: refused with ProfileError, or a model that predicts."""
    document = learned()
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)

    try:
        model = from_json(document)
    except ProfileError:
        return
    assert all(value >= 0.0 for value in predictions(model))
    model.observe(Sample(2, 2.0, 0.05), 0.0)
    assert model.predict_s(2, 2.0) > 0.0
