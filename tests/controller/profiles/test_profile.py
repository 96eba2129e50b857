"""What is kept of an image: keys, short texts that predict the same, and what counts as news."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.controller.profiles.profile import LONGEST, from_text, image_profile, key_of, to_text, worth_storing
from knative_sponge.core.latency.curve import Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import from_json, to_json
from knative_sponge.errors import ProfileError
from tests.controller.profile_kit import CURVE, document, learned

NOW = 1_800_000_030.0
HEX = "0123456789abcdef" * 4
DEARER = {name: 1.5 * value for name, value in document(300)["params"].items()}


@pytest.mark.parametrize(
    ("image", "key"),
    [
        ("registry:5000/a/model@sha256:" + HEX, "sha256-" + HEX),
        ("model:v1@sha256:" + HEX, "sha256-" + HEX),
        ("model:v1", "sha256-" + hashlib.sha256(b"model:v1").hexdigest()),
        ("model@sha256:short", "sha256-" + hashlib.sha256(b"model@sha256:short").hexdigest()),
    ],
)
def test_the_key_is_the_digest_or_else_the_hash_of_the_reference(image: str, key: str) -> None:
    assert key_of(image, "models", "ocr", "u-1") == key + ".models.ocr.a24a7f55f278dd49"


@given(st.text(), st.text())
def test_every_key_is_one_that_a_config_map_takes(image: str, service: str) -> None:
    assert re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key_of(image, "n", service, "u-1"))


def test_one_image_in_two_services_is_two_models() -> None:
    places = [("n", "ocr", "u-1"), ("n", "asr", "u-1"), ("m", "ocr", "u-1"), ("n", "ocr", "u-2")]
    assert len({key_of("model:v1", *place) for place in places}) == len(places)


def predictions(model: LatencyModel) -> list[float]:
    return [value for cores in (0.1, 1.0, 3.3, 16.0) for table in model.tables(cores, 40) for value in table[1:]]


sizes = st.tuples(st.integers(1, 40), st.floats(0.05, 64.0))


@settings(max_examples=60)
@given(st.lists(st.tuples(sizes, st.floats(0.8, 1.25)), max_size=60))
def test_the_text_predicts_what_the_model_did(history: list[tuple[tuple[int, float], float]]) -> None:
    model = LatencyModel(CURVE)
    for (rows, cores), factor in history:
        model.observe(Sample(rows, cores, CURVE.latency_s(rows, cores) * factor), 1.0)
    text = to_text(image_profile(to_json(model), 1.5, NOW))
    assert len(text.encode()) <= LONGEST
    kept = from_text(text)
    assert (kept.cores, kept.seen_s, kept.samples) == (1.5, NOW - 30.0, model.learner.samples)
    if len(model.learner.regions) <= 30:
        assert predictions(from_json(json.loads(kept.model))) == pytest.approx(predictions(model), rel=0.02)


def test_a_model_too_long_loses_the_regions_that_were_visited_least() -> None:
    model = learned(3000, sizes=60)
    for _ in range(50):
        model.observe(Sample(4, 1.0, CURVE.latency_s(4, 1.0)), 1.0)
    assert len(json.dumps(to_json(model))) > 2 * LONGEST
    text = to_text(image_profile(to_json(model), 1.5, NOW))
    assert LONGEST - 500 < len(text) <= LONGEST
    regions = json.loads(from_text(text).model)["regions"]
    kept = {(one["rows"], one["cores"]) for one in regions}
    dropped = {region: memory.visits for region, memory in model.learner.regions.items() if region not in kept}
    assert dropped
    assert max(dropped.values()) <= min(one["visits"] for one in regions)


def test_no_size_is_kept_where_none_is_known() -> None:
    assert from_text(to_text(image_profile(document(), None, NOW))).cores is None


def broken() -> list[Any]:
    whole = json.loads(to_text(image_profile(document(), 1.5, NOW)))
    return [
        "", "{", "[]", "5", "null", "{}", "[" * 8000, "x" * (LONGEST + 1), json.dumps(whole) + "x",
        json.dumps(whole | {"model": {"version": 99}}), json.dumps(whole | {"model": []}),
        json.dumps(whole | {"cores": "1"}), json.dumps(whole | {"cores": 0}), json.dumps(whole | {"cores": True}),
        json.dumps(whole | {"cores": float("nan")}), json.dumps(whole | {"seen": "yesterday"}),
        json.dumps(whole | {"seen": 5}), json.dumps({"model": whole["model"]}),
    ]  # fmt: skip


@pytest.mark.parametrize("text", broken(), ids=lambda text: text[:30])
def test_what_cannot_be_read_is_a_profile_error(text: str) -> None:
    with pytest.raises(ProfileError):
        from_text(text)


def test_the_same_again_is_no_news() -> None:
    one = image_profile(document(300), 1.0, NOW)
    assert worth_storing(None, one)
    assert not worth_storing(one, one)
    assert not worth_storing(one, image_profile(document(310), 1.05, NOW + 600))
    few = image_profile(document(40), 1.0, NOW)
    assert not worth_storing(few, image_profile(document(44), 1.0, NOW))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param((document(300), 1.0, NOW), (document(300), 1.2, NOW), id="larger"),
        pytest.param((document(300), 1.0, NOW), (document(300), 0.8, NOW), id="smaller"),
        pytest.param((document(300), None, NOW), (document(300), 1.0, NOW), id="a first size"),
        pytest.param((document(300), 1.0, NOW), (document(300, factor=1.2), 1.0, NOW), id="slower"),
        pytest.param(
            (document(300), 1.0, NOW), (document(300) | {"cost": DEARER}, 1.0, NOW), id="dearer in the long run"
        ),
        pytest.param((document(20), 1.0, NOW), (document(60), 1.0, NOW), id="surer"),
        pytest.param((document(300), 1.0, NOW), (document(300), 1.0, NOW + 3600), id="seen after an hour"),
    ],
)
def test_what_is_news(old: Any, new: Any) -> None:
    assert worth_storing(image_profile(*old), image_profile(*new))
