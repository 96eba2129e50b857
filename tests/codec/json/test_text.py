"""Reading JSON as bytes agrees with a reader that decodes everything: members, rows, structure, cuts."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.codec.json.array import Array
from knative_sponge.codec.json.skeleton import Skeleton
from knative_sponge.codec.json.text import JsonError, JsonText, json_fault
from knative_sponge.codec.v2.tensor import cut_prefixed
from tests.codec.tokens import NONFINITE, STRINGS, TOKENS, Number, read, write

numbers = st.sampled_from([*TOKENS, *NONFINITE]).map(Number)
scalars = st.one_of(numbers, st.sampled_from(STRINGS), st.booleans(), st.none())
keys = st.sampled_from(("data", 'x"data', "a", "", "é", "\x7f0", "NaN"))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)


@settings(max_examples=800)
@given(st.dictionaries(keys, values, max_size=4), st.booleans(), st.integers(0, 2**32))
def test_members_are_what_a_full_reader_finds(value: dict[str, Any], lift: bool, seed: int) -> None:
    text = JsonText(write(value, random.Random(seed)).encode(), lift=lift)
    text.check()
    members = text.members(text.frame)
    assert list(members) == list(value)
    for key, raw in members.items():
        assert read(text.whole(raw)) == value[key]
        if isinstance(value[key], list):
            assert read(text.array(raw).raw) == value[key]
            array = text.array(raw).raw
            assert [read(text.whole(item)) for item in text.elements(array, len(value[key]))] == value[key]
            assert [read(text.whole(item)) for item in (text.first(array),) if item is not None] == value[key][:1]


@settings(max_examples=300)
@given(st.lists(st.dictionaries(keys, values, max_size=3), max_size=4), st.integers(0, 2**32))
def test_objects_in_an_array_are_what_a_full_reader_finds(value: list[dict[str, Any]], seed: int) -> None:
    text = JsonText(write(value, random.Random(seed)).encode(), lift=True)
    found = text.objects(text.frame)
    assert [{key: read(text.whole(raw)) for key, raw in item.items()} for item in found] == value


@settings(max_examples=400)
@given(st.lists(st.tuples(keys, scalars), min_size=1, max_size=5), st.integers(0, 2**32))
def test_a_repeated_key_is_noticed_exactly_when_there_is_one(pairs: list[tuple[str, Any]], seed: int) -> None:
    rng = random.Random(seed)
    text = "{" + rng.choice((",", " , ", ",\n")).join(f"{write(key)}: {write(item, rng)}" for key, item in pairs) + "}"
    repeats = len({key for key, _ in pairs}) < len(pairs)
    for raw, look in ((text, JsonText.members), (f"[{{}}, {text} ,{{}}]", JsonText.objects)):
        document = JsonText(raw.encode(), lift=True)
        if repeats:
            with pytest.raises(JsonError, match="repeated"):
                look(document, document.frame)
        else:
            look(document, document.frame)


@pytest.mark.parametrize("raw", [b'{"a":1,"b":2,"a":{"p":0,"x":     2}}', b'{"a":1,"b":22,"a":{"p":0,"x":      2}}'])
def test_a_repeated_key_is_noticed_where_the_lengths_of_the_members_add_up(raw: bytes) -> None:
    text = JsonText(raw, lift=False)
    with pytest.raises(JsonError, match="repeated"):
        text.members(text.frame)


def structure(value: Any) -> Any:
    """What two values of equal skeleton have in common, from decoded values."""
    if isinstance(value, list):
        return [structure(item) for item in value]
    if isinstance(value, dict):
        return {"keys": list(value), "values": [structure(item) for item in value.values()]}
    return "number" if isinstance(value, Number) else type(value).__name__


@settings(max_examples=800)
@given(values, values, st.integers(0, 2**32))
def test_skeletons_are_equal_exactly_when_structures_are(one: Any, other: Any, seed: int) -> None:
    rng = random.Random(seed)
    skeletons = [Skeleton.of(write(value, rng).encode()) for value in (one, one, other)]
    assert skeletons[0] == skeletons[1]
    assert skeletons[0].digest() == skeletons[1].digest()
    assert (skeletons[0] == skeletons[2]) is (structure(one) == structure(other))


@settings(max_examples=300)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_nested_data_is_of_its_own_shape_only(shape: list[int], claimed: list[int]) -> None:
    value: Any = Number("1")
    for size in reversed(shape):
        value = [value] * size
    skeleton = Skeleton.of(write(value).encode())
    assert skeleton.is_nested(claimed, b"") is (claimed == shape)
    assert not skeleton.is_nested(shape, b"S")


@settings(max_examples=800)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.integers(-2, 2),
    st.sampled_from((1, 3, 300)),
    st.integers(0, 2**32),
)
def test_a_flat_array_is_cut_where_a_full_reader_would(counts: list[int], extra: int, most: int, seed: int) -> None:
    rng = random.Random(seed)
    tokens = [b"1" * rng.choice((1, 1, 1, most)) for _ in range(max(0, sum(counts) + extra))]
    text = b"x[" + b",".join(tokens) + b"]],1"
    array = Array(text, 1, len(text) - 3, flat=True)
    assert array.flat_size() == len(tokens)
    if extra:
        with pytest.raises(ValueError, match="elements"):
            array.cut_flat(counts)
        return
    pieces = [bytes(piece).split(b",") for piece in array.cut_flat(counts)]
    assert [len(piece) for piece in pieces] == counts
    assert [token for piece in pieces for token in piece] == tokens


@settings(max_examples=300)
@given(st.lists(st.lists(st.binary(max_size=5), max_size=4), min_size=1, max_size=4), st.binary(max_size=6))
def test_prefixed_elements_are_cut_between_elements(groups: list[list[bytes]], extra: bytes) -> None:
    encoded = [b"".join(len(item).to_bytes(4, "little") + item for item in group) for group in groups]
    counts = [len(group) for group in groups]
    assert [bytes(piece) for piece in cut_prefixed(memoryview(b"".join(encoded)), counts)] == encoded
    if extra:
        with pytest.raises(ValueError, match="bytes"):
            cut_prefixed(memoryview(b"".join(encoded) + extra), counts)


@settings(max_examples=500)
@given(values, st.integers(0, 2**32), st.integers(0, 200), st.binary(max_size=2))
def test_a_text_is_faulty_only_if_a_lenient_reader_says_so(value: Any, seed: int, at: int, noise: bytes) -> None:
    """Python's own reader accepts NaN, lone surrogates and other encodings too: it must never read what is refused."""
    text = write(value, random.Random(seed)).encode()
    text = text[:at] + noise + text[at + 1 :]
    try:
        json.loads(text)
    except ValueError:
        return
    assert json_fault(text) is None


@pytest.mark.parametrize(
    "text", [b'"\\ud800"', b'["\\udc00\\ud800", NaN]', b'{"\\uD83D":1}', b'"\\\\ud800"', b'"\\ud83d\\ude00"']
)
def test_lone_surrogates_are_no_fault(text: bytes) -> None:
    assert json_fault(text) is None


@pytest.mark.parametrize(
    "text",
    [
        b'"\\ud80"',
        b'"\\x41"',
        b"[NaN,]",
        b"[nan]",
        b"[+1]",
        b"\xff",
        b"NaNN",
        b"[NaN1]",
        b"[1NaN]",
        b"[Infinity0]",
        b"[NaN.5]",
        b"[-NaN]",
        b'{"a"}',
    ],
)
def test_what_no_reader_accepts_is_a_fault(text: bytes) -> None:
    assert json_fault(text)
