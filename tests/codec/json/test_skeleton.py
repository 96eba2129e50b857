"""Structures of JSON values, compared without their contents."""

from __future__ import annotations

import pytest

from knative_sponge.codec.json.skeleton import Skeleton


@pytest.mark.parametrize(
    ("text", "form", "keys"),
    [
        (b'[[1.5, -2e3], ["a", null]]', b"[[,],[S,n]]", ()),
        (b'{"a": true, "b": [false]}', b"{K:t,K:[t]}", (b'"a"', b'"b"')),
        (b"[NaN, -Infinity, Infinity]", b"[,,]", ()),
        (b'["NaN", "a\\"b", ":"]', b"[S,S,S]", ()),
        (b"[Infinity]", b"[]", ()),
        (b'"a"', b"S", ()),
        (b'["", 1]', b"[S,]", ()),
        (b"[ ]", b"[:]", ()),
        (b"[[],[1]]", b"[[:],[]]", ()),
        (b'{"a\\\\":"b"}', b"{K:S}", (b'"a\\\\"',)),
    ],
)
def test_contents_leave_only_their_kind(text: bytes, form: bytes, keys: tuple[bytes, ...]) -> None:
    assert Skeleton.of(text) == Skeleton(form, keys)


def test_an_array_of_equal_values_is_one_value_repeated() -> None:
    assert Skeleton.of(b'{"a":1}').times_in(Skeleton.of(b'[{"a":2},{"a":3}]')) == 2
    assert Skeleton.of(b'{"a":1}').times_in(Skeleton.of(b'[{"a":2},{"b":3}]')) is None
    assert Skeleton.of(b"7").times_in(Skeleton.of(b"[8]")) == 1
    assert Skeleton.of(b"7").times_in(Skeleton.of(b"[8,[1]]")) is None


def test_digests_tell_keys_and_forms_apart() -> None:
    texts = [b'{"a":1}', b'{"b":1}', b'{"a":"1"}', b'{"a":{"b":1}}', b'{"a":1,"b":1}']
    digests = {Skeleton.of(text).digest() for text in texts}
    assert [len(digest) for digest in digests] == [16] * len(texts)
    assert Skeleton.of(b'{"a":1}').digest() == Skeleton.of(b'{"a": 2}').digest()


@pytest.mark.parametrize(
    ("text", "leaves"),
    [(b"[1]", 1), (b"[[1,2],[3]]", 3), (b"[]", None), (b"[[],[1]]", None), (b'[{"a":1}]', None)],
)
def test_leaves_are_counted_in_arrays_of_arrays_alone(text: bytes, leaves: int | None) -> None:
    assert Skeleton.of(text).leaves() == leaves


@pytest.mark.parametrize(
    ("text", "shape", "nested"),
    [
        (b"[[1,2,3],[4,5,6]]", [2, 3], True),
        (b"[[1,2,3],[4,5,6]]", [3, 2], False),
        (b"[[1,2],[3,4],[5,6]]", [2, 3], False),
        (b"[1,2,3,4,5,6]", [2, 3], False),
        (b"[[[1]]]", [1, 1, 1], True),
        (b"[[[1]]]", [1, 1], False),
        (b"[1]", [1], True),
        (b"[1]", [], False),
        (b"[]", [0], False),
        (b'[["a"]]', [1, 1], False),
    ],
)
def test_nesting_must_be_exactly_the_shapes(text: bytes, shape: list[int], nested: bool) -> None:
    assert Skeleton.of(text).is_nested(shape, b"") is nested


def test_strings_may_be_leaves() -> None:
    assert Skeleton.of(b'[["a","b"]]').is_nested([1, 2], b"S")
    assert not Skeleton.of(b'[["a",null]]').is_nested([1, 2], b"S")


@pytest.mark.parametrize(("dimensions", "nested"), [(32, True), (33, False)])
def test_more_dimensions_than_anybody_has_are_not_looked_at(dimensions: int, nested: bool) -> None:
    skeleton = Skeleton.of(b"[" * dimensions + b"1" + b"]" * dimensions)
    assert skeleton.is_nested([1] * dimensions, b"") is nested
