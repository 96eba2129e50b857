"""What a Knative Service's owner is told, and the class that is added, on a Service that stock Knative stored."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.admission.admission_review import Verdict, json_patch, read_review
from knative_sponge.controller.admission.service import mutate_service, validate_service
from tests.controller.admission_kit import patched, question, stored

CLASS = "autoscaling.knative.dev/class"
OURS = "sponge.knative-sponge.dev"
STOCK = "kpa.autoscaling.knative.dev"


def service(template: Mapping[str, Any] | None = None, on_service: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A Service with our settings on its template and on itself."""
    made = stored("service")
    for place, chosen in ((made["spec"]["template"], template), (made, on_service)):
        place["metadata"].setdefault("annotations", {}).update(
            {name if "/" in name else f"knative-sponge.dev/{name}": value for name, value in (chosen or {}).items()}
        )
    return made


def asked(new: Any, old: Any = None) -> Any:
    return read_review(question(new, old=old, operation="CREATE" if old is None else "UPDATE"))


def stored_as(new: Any, old: Any = None) -> Any:
    """What the API server goes on with; the question must not change, and a second review must add nothing."""
    kept = copy.deepcopy(new)
    changed = mutate_service(asked(new, old)).changed
    assert new == kept
    after = patched(new, json_patch(new, new if changed is None else changed))
    again = mutate_service(asked(after, old)).changed
    assert again is None or again == after
    return after


def judged(new: Any, old: Any = None) -> Verdict:
    return validate_service(asked(new, old))


def class_of(found: Any) -> str | None:
    annotation: str | None = found["spec"]["template"]["metadata"]["annotations"].get(CLASS)
    return annotation


def with_port(made: dict[str, Any], name: str) -> dict[str, Any]:
    made["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "name": name}]
    return made


def test_a_service_with_slo_gets_our_class_and_nothing_else() -> None:
    before = service({"slo": "500ms"})
    after = stored_as(before)
    assert class_of(after) == OURS
    del after["spec"]["template"]["metadata"]["annotations"][CLASS]
    assert after == before


def test_a_template_without_any_metadata_is_left_alone() -> None:
    made = service(on_service={"slo": "500ms"})
    del made["spec"]["template"]["metadata"]
    assert stored_as(made) == made


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(service(), id="no slo"),
        pytest.param(service({"slo": ""}), id="empty slo"),
        pytest.param(service(on_service={"slo": "1s"}), id="slo on the Service alone"),
        pytest.param(service({"slo": "1s", CLASS: STOCK}), id="a class of the user's choice"),
        pytest.param(with_port(service({"slo": "1s"}), "h2c"), id="HTTP/2"),
        pytest.param(service({"slo": "soon"}), id="settings that cannot be used"),
        pytest.param(service({"slo": 500}), id="a number for a text"),
    ],
)
def test_no_class_is_added_where_our_proxy_does_not_serve_or_a_class_is_there(made: dict[str, Any]) -> None:
    assert stored_as(made) == made


def test_our_class_goes_with_slo() -> None:
    old = stored_as(service({"slo": "1s"}))
    new = service({CLASS: OURS})
    assert class_of(stored_as(new, old)) is None


def test_our_class_goes_when_the_port_becomes_http2() -> None:
    old = stored_as(service({"slo": "1s"}))
    new = with_port(copy.deepcopy(old), "h2c")
    assert class_of(stored_as(new, old)) is None


def test_our_class_stays_while_slo_does() -> None:
    old = stored_as(service({"slo": "1s"}))
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "dev.local/hello:2"
    assert stored_as(new, old) == new


def test_another_class_stays_when_slo_goes() -> None:
    old = service({"slo": "1s", CLASS: STOCK})
    assert class_of(stored_as(service({CLASS: STOCK}), old)) == STOCK


def test_a_class_that_was_ours_without_slo_stays() -> None:
    old = service({CLASS: OURS})
    assert class_of(stored_as(service({CLASS: OURS, "max-batch": "4"}), old)) == OURS


def test_an_update_beside_the_template_makes_no_new_revision() -> None:
    old = service({"slo": "1s"})  # stored while the webhook was away
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"team": "a"}
    assert stored_as(new, old) == new


def test_a_client_that_sends_its_file_again_makes_no_new_revision() -> None:
    sent = service({"slo": "1s"})
    old = stored_as(sent)
    assert stored_as(sent, old) == old


def test_a_deleted_service_is_left_alone() -> None:
    made = service({"slo": "1s", "max-batch": "0"})
    made["metadata"]["deletionTimestamp"] = "2026-11-22T08:09:44Z"
    assert stored_as(made) == made
    assert judged(made).message is None
    gone = read_review(question(None, old=made, operation="DELETE"))
    assert mutate_service(gone).changed is None
    assert validate_service(gone).message is None


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        pytest.param(
            {"slo": "soon"},
            "annotation knative-sponge.dev/slo: 'soon' is not allowed; "
            "expected a duration above zero, such as 500ms or 2s",
            id="duration",
        ),
        pytest.param(
            {"slo": "1s", "protocol": "grpc"},
            "annotation knative-sponge.dev/protocol: 'grpc' is not allowed; expected one of auto, ",
            id="choice",
        ),
        pytest.param(
            {"slo": "1s", "protocol": "openai"},
            "annotation knative-sponge.dev/protocol: 'openai' is not allowed; expected one of auto, ",
            id="a protocol without a codec",
        ),
        pytest.param(
            {"slo": "1s", "max-cores": "50m"},
            "annotation knative-sponge.dev/max-cores: '50m' is not allowed; expected at least min-cores (100m)",
            id="maximum below the default minimum",
        ),
        pytest.param(
            {"slo": "1s", "slow": "1"},
            "annotation knative-sponge.dev/slow: '1' is not allowed; expected one of client-budget, cpu-hook, ",
            id="unknown name",
        ),
        pytest.param(
            {"slo": "1s", "proxy": "sponge"},
            "annotation knative-sponge.dev/proxy: 'sponge' is not allowed; expected it to be left out: ",
            id="ours to write",
        ),
        pytest.param(
            {"slo": 500}, "annotation knative-sponge.dev/slo: 500 is not allowed; expected a text; ", id="a number"
        ),
    ],
)
@pytest.mark.parametrize("where", ["template", "on_service"])
def test_settings_that_cannot_be_used_are_refused_with_name_value_and_what_is_allowed(
    annotations: dict[str, Any], message: str, where: str
) -> None:
    verdict = judged(service(**{where: annotations}))
    assert verdict.message is not None
    assert verdict.message.startswith(message)
    assert "\n" not in verdict.message


def test_all_mistakes_are_told_at_once_and_each_only_once() -> None:
    wrong = {"slo": "soon", "max-batch": "0", "min-memory": "2Gi", "max-memory": "1Gi", "proxy": "stock", "x": ""}
    verdict = judged(service(wrong, on_service=wrong))
    assert verdict.message is not None
    lines = verdict.message.splitlines()
    assert len(lines) == 5
    for name in ("slo", "max-batch", "max-memory", "proxy", "x"):
        assert sum(f"annotation knative-sponge.dev/{name}: " in line for line in lines) == 1


def test_two_contradictions_are_both_told() -> None:
    verdict = judged(service({"min-cores": "2", "max-cores": "1", "min-memory": "2Gi", "max-memory": "1Gi"}))
    assert verdict.message is not None
    assert [line.split(":")[0].rpartition("/")[2] for line in verdict.message.splitlines()] == [
        "max-cores",
        "max-memory",
    ]


def test_a_maximum_is_not_held_against_a_minimum_that_cannot_be_read() -> None:
    verdict = judged(service({"slo": "1s", "min-cores": "few", "max-cores": "50m"}))
    assert verdict.message is not None
    assert "max-cores" not in verdict.message


@pytest.mark.parametrize("maximum", ["50m", "none"])
def test_a_small_maximum_is_fine_with_a_small_minimum(maximum: str) -> None:
    verdict = judged(service({"slo": "1s", "min-cores": "20m", "max-cores": maximum}))
    assert (verdict.message is None) is (maximum == "50m")


@pytest.mark.parametrize(
    ("made", "warning"),
    [
        pytest.param(service(on_service={"slo": "1s"}), "no effect on the Service alone", id="not on the template"),
        pytest.param(service({"max-batch": "4"}), "no effect without knative-sponge.dev/slo", id="no slo"),
        pytest.param(service({"slo": ""}), "no effect without knative-sponge.dev/slo", id="empty slo"),
        pytest.param(with_port(service({"slo": "1s"}), "h2c"), "keeps the stock proxy", id="HTTP/2"),
        pytest.param(service({"slo": "301s"}), "longer than timeoutSeconds (300)", id="longer than the timeout"),
        pytest.param(service({"slo": "1s", CLASS: STOCK}), "only pod sizes", id="Knative's own class"),
    ],
)
def test_what_has_no_effect_is_allowed_with_a_warning(made: dict[str, Any], warning: str) -> None:
    verdict = judged(made)
    assert verdict.message is None
    (text,) = verdict.warnings
    assert warning in text
    assert len(text) <= 256  # the API server cuts there


def test_what_kn_writes_on_both_places_draws_no_warning() -> None:
    verdict = judged(service({"slo": "500ms", "max-cores": "4"}, on_service={"slo": "500ms", "max-cores": "4"}))
    assert (verdict.outcome, verdict.message, verdict.warnings) == ("allowed", None, ())


def test_an_update_that_changes_none_of_it_is_allowed_even_when_it_is_wrong() -> None:
    old = service({"slo": "soon"})  # stored while the webhook was away
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = []
    assert judged(new, old).message is None
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "dev.local/hello:2"
    assert judged(new, old).message is not None
    other = service({"slo": "soon"}, on_service={"slo": "1s"})
    assert judged(other, old).message is not None


def test_a_service_without_our_settings_is_allowed_silently() -> None:
    verdict = judged(stored("service"))
    assert (verdict.message, verdict.warnings) == (None, ())


@pytest.mark.parametrize(
    "spec", [{}, {"spec": None}, {"spec": {"template": None}}, {"spec": {"template": {"spec": {}}}}]
)
def test_an_incomplete_service_is_left_to_knative(spec: dict[str, Any]) -> None:
    made = json.loads(json.dumps({"metadata": {"name": "s"}} | spec))
    assert stored_as(made) == made
    assert judged(made).message is None


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys or positions."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places(inner)


ODD = st.sampled_from([None, "x", "", 1, True, [], [None], ["x"], {}, {"a": None}])


@given(st.data())
def test_a_service_of_any_shape_is_judged(data: st.DataObject) -> None:
    """Nobody has checked it before us: what Knative will refuse must not break the webhook first."""
    made = with_port(service({"slo": "500ms", "max-cores": "4"}), "http1")
    old = copy.deepcopy(made)
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(places(made))
        place, key = found[data.draw(st.integers(0, len(found) - 1))]
        place[key] = copy.deepcopy(data.draw(ODD))
    for before in (None, old):
        stored_as(made, before)
        judged(made, before)
    stored_as(old, made)
    judged(old, made)
