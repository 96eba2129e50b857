"""The page about annotations says what the webhook really accepts, refuses and writes."""

from __future__ import annotations

import re
from pathlib import Path

from knative_sponge.controller.admission.admission_review import read_review
from knative_sponge.controller.admission.service import validate_service
from knative_sponge.controller.annotations import CLASS, CLASS_ANNOTATION, MIN_SCALE, faults, read_settings
from knative_sponge.settings import ServingSettings
from knative_sponge.settings.serving import ANNOTATION_PREFIX, INTERNAL
from tests.controller.admission_kit import question, stored

TEXT = (Path(__file__).parent.parent / "docs" / "annotations.md").read_text()
ROWS = re.findall(r"^\| `([a-z-]+)` \| ([^|]*) \| ([^|]*) \| `--annotation ([^|`]*)` \|$", TEXT, re.MULTILINE)


def test_every_setting_is_there_with_its_values_and_default() -> None:
    defaults = ServingSettings().effective()
    assert [name for name, *_ in ROWS] == list(ServingSettings.names())
    for name, values, default, _ in ROWS:
        (fault,) = faults({ANNOTATION_PREFIX + name: "~"})
        assert values == fault.allowed
        assert default.strip("`") == defaults.get(name, "unset")


def test_every_example_is_accepted_and_sets_what_it_stands_beside() -> None:
    for name, _, _, example in ROWS:
        key, value = example.split("=")
        assert key == ANNOTATION_PREFIX + name
        set_by_it = read_settings({key: value}).effective().items() - ServingSettings().effective().items()
        assert {other for other, _ in set_by_it} == {name} or value == ServingSettings().effective()[name]


def test_the_refusal_shown_is_the_one_given() -> None:
    shown = [line.strip() for line in TEXT.splitlines() if line.startswith("    annotation ")]
    service = stored("service")
    service["spec"]["template"]["metadata"]["annotations"] |= {
        ANNOTATION_PREFIX + "slo": "soon",
        ANNOTATION_PREFIX + "min-cores": "2",
        ANNOTATION_PREFIX + "max-cores": "1",
    }
    assert validate_service(read_review(question(service))).message == "\n".join(shown)


def test_every_annotation_named_is_one_of_ours_or_of_knative() -> None:
    known = {ANNOTATION_PREFIX + name for name in ServingSettings.names()} | INTERNAL
    assert set(re.findall(r"knative-sponge\.dev/[a-z-]+", TEXT.replace("\\.", "."))) == known
    assert set(re.findall(r"autoscaling\.knative\.dev/[a-z-]+", TEXT)) == {CLASS_ANNOTATION, MIN_SCALE[0]}
    assert CLASS in TEXT
