"""A recipe is an input written small."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.engine.mutation import Mutator
from fuzz.engine.recipe import MOST, expand


@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        (b"plain", b"plain"),
        (b"a<<3*bc>>d", b"abcbcbcd"),
        (b"<<2*a<<3*b>>c>>", b"abbbcabbbc"),
        (b"<<0*a>>b", b"b"),
        (b"a>>b<<c<<x*d", b"a>>b<<c<<x*d"),
        (b"a<<2*b", b"abb"),
        (b"<<3*\r\n>>", b"\r\n\r\n\r\n"),
    ],
)
def test_repeats_stand_for_what_they_repeat(recipe: bytes, data: bytes) -> None:
    assert expand(recipe) == data


@given(st.lists(st.sampled_from([b"<<9999999*", b"<<1000*", b">>", b"a", b"\r\n"]), max_size=40).map(b"".join))
def test_no_recipe_makes_more_than_a_megabyte(recipe: bytes) -> None:
    assert len(expand(recipe)) <= MOST


def test_changes_make_inputs_of_every_size_and_mostly_small_ones() -> None:
    rng = random.Random(1)
    mutate = Mutator(lambda data, _: data, (b'"key":', b"[0],"), (b'{"a":[1,2<<2*,3>>]}',))
    sizes = [len(expand(mutate(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 8192, rng.getrandbits(32)))) for _ in range(500)]
    assert sum(size < 2048 for size in sizes) > 250
    assert sum(size > 65536 for size in sizes) > 10
    assert max(sizes) > 500_000


def test_a_change_is_one_for_ever() -> None:
    mutate = Mutator(lambda data, _: data, (b"x",))
    assert mutate(b"abc 123\n", 100, 7) == mutate(b"abc 123\n", 100, 7)
