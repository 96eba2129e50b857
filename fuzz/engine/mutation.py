"""Changes that make an input large or deep, beside those that a fuzzer makes anyway. Recipes in, recipes out."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

from fuzz.engine.recipe import MOST, expand

_NUMBER = re.compile(rb"\d+")
_REPEAT = re.compile(rb"<<(\d{1,7})\*")
_LINE = re.compile(rb"[^\n]*\n")
_NESTS = ((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"), (b'"', b'"'))

_LEAST: Final = 1024
"""Bytes that every input may have; few may have more, or there would be no time for many inputs."""

Change = Callable[[bytes, random.Random], bytes]


class Mutator:
    """Makes a new recipe of an old one: half the time as the fuzzer would, else by a change that knows about size.

    plain: the fuzzer's own change, of a text to one of at most so many bytes. tokens: pieces that mean something to the target.
    seeds: recipes that are begun with again and again. Coverage alone would soon forget them: two repeats of a line reach
    every branch that two thousand reach.
    """

    def __init__(
        self, plain: Callable[[bytes, int], bytes], tokens: Sequence[bytes], seeds: Sequence[bytes] = ()
    ) -> None:
        self._plain = plain
        self._tokens = tokens
        self._seeds = seeds
        self._changes: tuple[Change, ...] = (
            _repeat_slice, _repeat_slice, _repeat_line, _repeat_line, _lengthen_number, _nest, _other_count,
            _other_count, _other_counts, _unwrap, _double, self._token, self._token, self._many_tokens,
        )  # fmt: skip

    def __call__(self, recipe: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if self._seeds and rng.random() < 0.2:
            recipe = rng.choice(self._seeds)
        if rng.random() < 0.5:
            recipe = self._plain(recipe, most)
        else:
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                recipe = rng.choice(self._changes)(recipe, rng)
        return _tame(recipe[:most], _LEAST * (MOST // _LEAST) ** (rng.random() ** 3))

    def _token(self, recipe: bytes, rng: random.Random) -> bytes:
        start, end = (
            sorted(rng.randint(0, len(recipe)) for _ in range(2)) if rng.random() < 0.2 else _place(recipe, rng)
        )
        return recipe[:start] + rng.choice(self._tokens) + recipe[end:]

    def _many_tokens(self, recipe: bytes, rng: random.Random) -> bytes:
        at, _ = _place(recipe, rng)
        return recipe[:at] + _repeated(rng.choice(self._tokens), rng) + recipe[at:]


def _tame(recipe: bytes, most: float) -> bytes:
    """The recipe with counts so small that it makes at most about `most` bytes; the largest count is halved first."""
    while len(expand(recipe)) > most:
        repeat = max(_REPEAT.finditer(recipe), key=lambda found: int(found[1]), default=None)
        if repeat is None or int(repeat[1]) < 2:
            break
        recipe = recipe[: repeat.start(1)] + b"%d" % (int(repeat[1]) // 2) + recipe[repeat.end(1) :]
    return recipe


def _count(rng: random.Random) -> int:
    """From ten to a million, every power of ten as likely."""
    return int(10 ** rng.uniform(1, 6))


def _repeated(unit: bytes, rng: random.Random) -> bytes:
    return b"<<%d*%b>>" % (_count(rng), unit)


def _place(recipe: bytes, rng: random.Random) -> tuple[int, int]:
    at = rng.randint(0, len(recipe))
    return at, at


def _repeat_slice(recipe: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(recipe))
    end = min(len(recipe), start + int(2 ** rng.uniform(0, 7)))
    return recipe[:start] + _repeated(recipe[start:end], rng) + recipe[end:]


def _repeat_line(recipe: bytes, rng: random.Random) -> bytes:
    lines = list(_LINE.finditer(recipe))
    if not lines:
        return _repeat_slice(recipe, rng)
    line = rng.choice(lines)
    return recipe[: line.start()] + _repeated(line[0], rng) + recipe[line.end() :]


def _lengthen_number(recipe: bytes, rng: random.Random) -> bytes:
    numbers = list(_NUMBER.finditer(recipe))
    if not numbers:
        return recipe + _repeated(b"%d" % rng.randint(0, 9), rng)
    number = rng.choice(numbers)
    longer = rng.choice((
        _repeated(number[0], rng), b"%d" % 10 ** rng.randint(3, 30), b"0." + _repeated(b"0", rng) + b"1",
        number[0] + b"e" + _repeated(b"9", rng), b"-" + number[0], b"0",
    ))  # fmt: skip
    return recipe[: number.start()] + longer + recipe[number.end() :]


def _nest(recipe: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(recipe))
    end = rng.randint(start, min(len(recipe), start + 64))
    opening, closing = rng.choice(_NESTS)
    depth = _count(rng)
    return b"%b<<%d*%b>>%b<<%d*%b>>%b" % (
        recipe[:start], depth, opening, recipe[start:end], depth, closing, recipe[end:],
    )  # fmt: skip


def _other_count(recipe: bytes, rng: random.Random) -> bytes:
    repeats = list(_REPEAT.finditer(recipe))
    if not repeats:
        return _repeat_slice(recipe, rng)
    repeat = rng.choice(repeats)
    return recipe[: repeat.start(1)] + b"%d" % _count(rng) + recipe[repeat.end(1) :]


def _other_counts(recipe: bytes, rng: random.Random) -> bytes:
    return _REPEAT.sub(lambda repeat: b"<<%d*" % (_count(rng) if rng.random() < 0.7 else int(repeat[1])), recipe)


def _unwrap(recipe: bytes, rng: random.Random) -> bytes:
    """One repeat less: without a way back all inputs would end as large ones, and few would be tried a second."""
    repeats = list(_REPEAT.finditer(recipe))
    if not repeats:
        return recipe
    repeat = rng.choice(repeats)
    end = recipe.find(b">>", repeat.end())
    return recipe[: repeat.start()] + (
        recipe[repeat.end() :] if end < 0 else recipe[repeat.end() : end] + recipe[end + 2 :]
    )


def _double(recipe: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(recipe))
    end = rng.randint(start, len(recipe))
    at = rng.randint(0, len(recipe))
    return recipe[:at] + recipe[start:end] + recipe[at:]
