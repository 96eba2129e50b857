"""AdmissionReview in and out, and the patch between two objects."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.admission.admission_review import (
    BadReview,
    Verdict,
    json_patch,
    read_review,
    write_review,
)
from tests.controller.admission_kit import patched, question, stored, stored_after

KEYS = st.text(st.sampled_from("ab/~01-é"), max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 2.5]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(VALUES, VALUES)
def test_a_patch_turns_one_value_into_the_other(before: Any, after: Any) -> None:
    kept = json.dumps(before)
    assert same(patched(before, json_patch(before, after)), after)
    assert json.dumps(before) == kept


@given(VALUES)
def test_equal_values_need_no_patch(value: Any) -> None:
    assert json_patch(value, json.loads(json.dumps(value))) == []


def test_a_patch_touches_only_what_differs() -> None:
    before = {"a": {"x": 1, "y": [1, {"k": "v"}]}, "b": 2}
    after = {"a": {"x": 1, "y": [1, {"k": "w"}, 3, 4]}, "b": 2}
    assert json_patch(before, after) == [
        {"op": "replace", "path": "/a/y/1/k", "value": "w"},
        {"op": "add", "path": "/a/y/-", "value": 3},
        {"op": "add", "path": "/a/y/-", "value": 4},
    ]


def test_an_absent_map_is_added_as_a_whole() -> None:
    assert json_patch({"metadata": {}}, {"metadata": {"annotations": {"a/b": "c"}}}) == [
        {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "c"}}
    ]


def test_keys_with_slash_and_tilde_are_escaped() -> None:
    assert json_patch({"n": {}}, {"n": {"x.dev/a~b": "1"}}) == [{"op": "add", "path": "/n/x.dev~1a~0b", "value": "1"}]


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (True, 1)])
def test_a_boolean_is_not_the_number_it_equals_in_python(before: Any, after: Any) -> None:
    assert json_patch({"a": before}, {"a": after}) == [{"op": "replace", "path": "/a", "value": after}]


def test_a_question_is_read_whole() -> None:
    review = read_review(question({"a": 1}, old={"a": 0}, operation="UPDATE", uid="u-1"))
    assert (review.uid, review.operation, review.namespace, review.name) == ("u-1", "UPDATE", "default", "hello")
    assert (review.new, review.old) == ({"a": 1}, {"a": 0})


def test_the_answer_carries_uid_warnings_and_patch() -> None:
    pod = stored("pod")
    review = read_review(question(pod, uid="u-2"))
    changed = {**pod, "spec": {**pod["spec"], "priority": 3}}
    answer = write_review(review, Verdict("changed", changed=changed, warnings=("mind this",)))
    parsed = json.loads(answer)
    assert (parsed["apiVersion"], parsed["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = parsed["response"]
    assert (response["uid"], response["allowed"], response["warnings"]) == ("u-2", True, ["mind this"])
    assert stored_after(pod, answer) == changed


def test_an_unchanged_object_gets_no_patch() -> None:
    pod = stored("pod")
    review = read_review(question(pod))
    for verdict in (Verdict("untouched"), Verdict("same", changed=pod)):
        response = json.loads(write_review(review, verdict))["response"]
        assert response == {"uid": review.uid, "allowed": True}


def test_a_refusal_tells_why_and_patches_nothing() -> None:
    review = read_review(question({"a": 1}))
    response = json.loads(write_review(review, Verdict("refused", changed={"a": 2}, message="a must be 1")))["response"]
    assert response["allowed"] is False
    assert response["status"]["message"] == "a must be 1"
    assert response["status"]["code"] == 403
    assert "patch" not in response


def without(field: str) -> bytes:
    review = json.loads(question({}))
    del review["request"][field]
    return json.dumps(review).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"\xff{", "not JSON", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "not JSON", id="nested without end"),
        pytest.param(b"[]", "not an AdmissionReview", id="an array"),
        pytest.param(question({}).replace(b"k8s.io/v1", b"k8s.io/v1beta1"), "admission.k8s.io/v1", id="v1beta1"),
        pytest.param(b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}', "no request", id="no request"),
        pytest.param(without("uid"), "no uid", id="no uid"),
        pytest.param(without("operation"), "no operation", id="no operation"),
        pytest.param(question([1]), "object is not an object", id="object is an array"),
        pytest.param(question({}, old="secret"), "oldObject is not an object", id="old object is a text"),
    ],
)
def test_a_bad_question_is_refused_with_a_clear_text(body: bytes, says: str) -> None:
    with pytest.raises(BadReview, match=says) as caught:
        read_review(body)
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_body_is_only_bad_review_is_raised(body: bytes) -> None:
    with pytest.raises(BadReview):
        read_review(body)
