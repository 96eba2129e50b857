"""One JSON text, read level by level without decoding a number or copying a tensor. Nothing here knows a protocol.

msgspec checks the grammar and finds the members at C speed; values stay the bytes that came. A tensor's flat array is
lifted out before that, so that its bytes are walked once and not once per level.

An object in memory takes some 100 bytes, and JSON spells one in two. So nothing is made for each member or element before
their number is bounded.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from knative_sponge.codec.json.array import Array

_ANY = msgspec.json.Decoder(msgspec.Raw)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])


class _First(msgspec.Struct, array_like=True):
    """An array of which only the first element is made."""

    first: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_FIRST = msgspec.json.Decoder(_First)

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OPEN = re.compile(rb"\s*+,?\s*+\{")
_KEY = re.compile(rb"\s*+,?\s*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_CLOSE = re.compile(rb"\s*+\}")
_SEPARATOR = re.compile(rb"\s*+,?\s*+")
# Python, TensorFlow and RapidJSON read and write these although JSON has no such numbers.
_NONFINITE = (
    (b"NaN", re.compile(rb"NaN(?<![\w.+-]NaN)(?![\w.])"), b"111"),
    (b"Infinity", re.compile(rb"Infinity(?<![\w.+]Infinity)(?![\w.])"), b"11111111"),
    (b"Inf", re.compile(rb"Inf(?<![\w.+]Inf)(?![\w.])"), b"111"),
)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_DATA = b'"data"'
# Far more than tensors need, and far less than would hold up the event loop.
_MOST_LIFTED = 1000
_MOST_WALKED = 10_000
# At whatever depth: were all of them members of one object, it would take 25 MB until that is found out.
_MOST_KEYS = 100_000
_MOST_OBJECTS = 1000
_MOST_NONFINITE = 100_000
_MOST_SURROGATES = 100_000
_MOST_QUOTES = 1_000_000
_MOST_TRIED = 8
_FEW_COLONS = 32
_LEAST_MEMBER = len('"":0')
_MOST_REPEATED = 64 * 2**20
_PIECE = 64 * 1024
# A key ends with a quote before a colon; so may a text within a string, where a backslash stands before the quote.
_KEY_END = re.compile(rb'"\s*+:')
_LONGEST_ESCAPE = 64
_SET_ASIDE = b'"\x7f"'
_COLON_ARRAY = re.compile(rb"\s*+:\s*+(?=\[)")

# DEL may stand in a JSON string but hardly ever does; nothing is lifted out of a text that has it.
_LIFTED = b'"\x7f%d"'
_LIFTED_INDEX = re.compile(rb'"\x7f(\d+)"')


class JsonError(Exception):
    """The text is not the kind of JSON asked for; caught inside the codec package."""


class JsonText:
    """A JSON text and the arrays lifted out of it.

    lift: whether to lift flat arrays that follow a key `data`.
    frame: the text with a mark for each lifted array; pass it, and what comes out of it, to `members`, `objects` and
    `elements`, and whatever is to leave this object to `whole` or `array`.
    nonfinite: whether NaN or Infinity was met as a number.
    """

    __slots__ = ("_spans", "_text", "frame", "nonfinite")

    def __init__(self, text: bytes, *, lift: bool) -> None:
        self._text = text
        self.frame, self._spans = _lift(text) if lift else (text, [])
        self.nonfinite = False

    def check(self) -> None:
        """Raises JsonError unless lifted arrays are JSON and strings are UTF-8; a request must pass to be merged."""
        if not self._text.isascii():
            try:
                _check_utf8(self._text)
            except UnicodeDecodeError as error:
                raise JsonError(error.reason) from error
        for start, end in self._spans:
            self._decode(_ANY, self._text[start:end])

    def members(self, raw: bytes, large: str | None = None) -> dict[str, bytes]:
        """The members of an object, values as they stand. Raises JsonError when it is none or repeats a key.

        large: a member that may have any number of keys inside it; all else may have 100,000, and the object 10,000.
        """
        if _has_many_keys(raw):
            return self._members_beside(raw, large)
        read, finite = self._decode(_MEMBERS, raw)
        if len(read) > _MOST_WALKED:
            raise JsonError(f"more than {_MOST_WALKED} members")
        members, end = _walk(raw, finite, 0, read)
        if raw[end:].strip():
            raise JsonError("a key is repeated")
        return members

    def objects(self, raw: bytes) -> list[dict[str, bytes]]:
        """The members of each object in an array. Raises JsonError as `members` does."""
        if _has_many_keys(raw):
            raise JsonError(f"more than {_MOST_KEYS} members")
        if len(raw) > _MOST_KEYS and raw.count(b"{") > _MOST_KEYS:
            # Most of them may stand in strings: the objects are taken one by one, and not too many.
            found, finite = self._decode(_some(_MOST_OBJECTS + 1), raw)
            items = [item for name in found.__struct_fields__ if (item := getattr(found, name)) is not msgspec.UNSET]
            if len(items) > _MOST_OBJECTS:
                raise JsonError(f"more than {_MOST_OBJECTS} objects")
            return [self.members(item) for item in _as_spelled(raw, finite, items)]
        read, finite = self._decode(_OBJECTS, raw)
        if sum(map(len, read)) + len(read) > _MOST_WALKED:
            raise JsonError(f"more than {_MOST_WALKED} objects or members")
        at = raw.index(b"[") + 1
        objects = []
        for item in read:
            members, at = _walk(raw, finite, at, item)
            objects.append(members)
        return objects

    def first(self, raw: bytes) -> bytes | None:
        """The first element of an array, None when it is empty. Raises JsonError when it is no array."""
        read, finite = self._decode(_FIRST, raw)
        if read.first is msgspec.UNSET:
            return None
        return _as_spelled(raw, finite, [read.first])[0]

    def elements(self, raw: bytes, expected: int) -> list[bytes]:
        """The elements of an array, as they stand. Raises JsonError when it is none, or plainly has not `expected` ones.

        Of a long array no more are made than expected.
        """
        read, finite = self._decode(_ELEMENTS if len(raw) <= _PIECE else _exactly(expected), raw)
        return _as_spelled(raw, finite, read)

    def string(self, raw: bytes) -> str:
        """A decoded string. Raises JsonError when it is none."""
        try:
            return msgspec.json.decode(raw, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JsonError(str(error)) from error

    def array(self, raw: bytes) -> Array:
        """The array a value stands for, lifted or not. Raises JsonError when it is none."""
        if self._spans and (lifted := _LIFTED_INDEX.fullmatch(raw)):
            start, end = self._spans[int(lifted[1])]
            return Array(self._text, start, end, flat=True)
        raw = self.whole(raw)
        if not raw.startswith(b"["):
            raise JsonError("Expected `array`")
        return Array(raw, 0, len(raw), flat=False)

    def whole(self, raw: bytes) -> bytes:
        """A value with its lifted arrays put back."""
        if not self._spans or b"\x7f" not in raw:
            return raw
        return _LIFTED_INDEX.sub(lambda found: self._text[slice(*self._spans[int(found[1])])], raw)

    def compact(self, raw: bytes) -> bytes:
        """A whole value without the white space between its tokens, to compare it with others."""
        try:
            return msgspec.json.format(self.whole(raw), indent=-1)
        except (msgspec.DecodeError, RecursionError) as error:
            raise JsonError(str(error)) from error

    def _members_beside(self, raw: bytes, large: str | None) -> dict[str, bytes]:
        """The members of an object of very many keys, when all but a few are inside the large one."""
        too_many = JsonError(f"more than {_MOST_KEYS} members")
        if large is None:
            raise too_many
        found, finite = self._decode(_only(large), raw)
        if found.value is msgspec.UNSET:
            raise too_many
        value = bytes(found.value)
        key = re.compile(b'"%b"\\s*+:\\s*+' % re.escape(large.encode()))
        for place in islice(key.finditer(finite), _MOST_TRIED):
            start, end = place.end(), place.end() + len(value)
            if finite.startswith(value, start):
                members = self.members(raw[:start] + _SET_ASIDE + raw[end:])
                # An equal one that is not the object's own stood before it: rare enough to be left alone.
                if members.get(large) == _SET_ASIDE:
                    return {**members, large: raw[start:end]}
                break
        raise too_many

    def _decode(self, decoder: msgspec.json.Decoder[Any], raw: bytes) -> tuple[Any, bytes]:
        """What msgspec finds and where: in `raw` itself, or in a text of equal offsets without NaN and Infinity."""
        try:
            return decoder.decode(raw), raw
        except RecursionError as error:
            raise JsonError("nested too deeply") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            finite = _finite(raw)
            if finite is None or finite == raw:
                raise JsonError(str(error)) from error
            try:
                read = decoder.decode(finite)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise JsonError(str(error)) from error
        self.nonfinite = True
        return read, finite


def json_fault(text: bytes) -> str | None:
    """Why no JSON reader can accept the text, or None when some do.

    Lenient on purpose, because a request is refused for it: NaN and Infinity, lone surrogates, other encodings of
    Unicode and any depth pass, and so do texts with too many of these to look for other faults.
    """
    fault = _fault(text)
    if fault is None or json.detect_encoding(text) != "utf-8":
        return None
    finite = _finite(text)
    if finite is None or finite.count(b"\\u") > _MOST_SURROGATES:
        return None
    # A backslash before the surrogate's makes it plain text, and then makes plain text of what replaces it too.
    return fault if _fault(_SURROGATE.sub(rb"\\n", finite)) else None


def object_tail(members: Mapping[str, bytes]) -> bytes:
    """The end of an object that already has a member: `,"key":value…}`."""
    pairs = [b"," + msgspec.json.encode(key) + b":" + value for key, value in members.items()]
    return b"".join([*pairs, b"}"])


def check_repeated(members: Mapping[str, bytes], times: int) -> None:
    """Raises JsonError unless members may stand in each of `times` answers: together they must not be giant."""
    size = sum(map(len, members.values()))
    if size * times > _MOST_REPEATED:
        raise JsonError(f"{size} bytes of it would have to be repeated {times} times")


@lru_cache(maxsize=64)
def _exactly(count: int) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(tuple[(msgspec.Raw,) * count])  # type: ignore[misc]


@lru_cache(maxsize=1)
def _some(count: int) -> msgspec.json.Decoder[Any]:
    """Of arrays of which at most the first `count` elements are made."""
    one = (msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)
    return msgspec.json.Decoder(msgspec.defstruct("Some", [(f"_{at}", *one) for at in range(count)], array_like=True))


@lru_cache(maxsize=8)
def _only(name: str) -> msgspec.json.Decoder[Any]:
    """Of objects of which only the member of that name is made, as `value`."""
    one = ("value", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)
    return msgspec.json.Decoder(msgspec.defstruct("Only", [one], rename={"value": name}))


def _has_many_keys(text: bytes) -> bool:
    """Whether the objects of a text may have more than `_MOST_KEYS` keys, at whatever depth."""
    if len(text) < _LEAST_MEMBER * _MOST_KEYS:
        return False
    at = 0
    for _ in range(_FEW_COLONS):  # finding some is faster than counting all, and most texts have but some
        at = text.find(b":", at) + 1
        if not at:
            return False
    if text.count(b":") <= _MOST_KEYS:
        return False
    keys = 0
    for met, end in enumerate(_KEY_END.finditer(text)):
        before = text[max(end.start() - _LONGEST_ESCAPE, 0) : end.start()]
        keys += (len(before) - len(before.rstrip(b"\\"))) % 2 == 0
        if keys > _MOST_KEYS or met > _MOST_QUOTES:
            return True
    return False


def _check_utf8(text: bytes) -> None:
    """Raises UnicodeDecodeError; never has the whole text in memory a second time, where a letter may take four bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    for start in range(0, len(text), _PIECE):
        decoder.decode(view[start : start + _PIECE])
    decoder.decode(b"", final=True)


def _as_spelled(raw: bytes, finite: bytes, items: Sequence[msgspec.Raw]) -> list[bytes]:
    """The first elements of the array `raw`, as it spells what was found in `finite`."""
    if finite is raw:
        return list(map(bytes, items))
    at = raw.index(b"[") + 1
    elements = []
    for item in items:
        start = _past(_SEPARATOR, raw, at)
        at = start + len(bytes(item))
        elements.append(raw[start:at])
    return elements


def _fault(text: bytes) -> str | None:
    try:
        _ANY.decode(text)
    except msgspec.DecodeError as error:
        return str(error)
    except RecursionError:
        return None
    return None


def _finite(text: bytes) -> bytes | None:
    """The text with a number of as many characters for each NaN and Infinity, and for these words within strings.

    None when there are too many of them.
    """
    if text.count(b"NaN") + text.count(b"Inf") > _MOST_NONFINITE:
        return None
    for word, token, number in _NONFINITE:
        if word in text:
            text = token.sub(number, text)
    return text


def _walk(raw: bytes, finite: bytes, at: int, found: Mapping[str, msgspec.Raw]) -> tuple[dict[str, bytes], int]:
    """The members of the object at `at` and the offset after it, as `raw` spells what was found in `finite`.

    A repeated key leaves text that the members found do not account for: JsonError.
    """
    members: dict[str, bytes] = {}
    at = _past(_OPEN, raw, at)
    for key, value in found.items():
        name = _match(_KEY, raw, at)
        same = bytes(value)
        start, at = name.end(), name.end() + len(same)
        if finite[start:at] != same:
            raise JsonError("a key is repeated")
        if finite is raw:
            members[key] = same
        else:
            members[msgspec.json.decode(name[1], type=str)] = raw[start:at]
    return members, _past(_CLOSE, raw, at)


def _past(token: re.Pattern[bytes], raw: bytes, at: int) -> int:
    return _match(token, raw, at).end()


def _match(token: re.Pattern[bytes], raw: bytes, at: int) -> re.Match[bytes]:
    found = token.match(raw, at)
    if found is None:
        raise JsonError("a key is repeated")
    return found


def _lift(text: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Replace each flat array after a key `data` by a mark.

    In JSON an unescaped `"data"` before a colon ends a key, and an array without quotes, brackets and braces inside is
    over at its first `]`: no other knowledge of the text is needed. Arrays beyond `_MOST_LIFTED` stay where they are.
    """
    spans: list[tuple[int, int]] = []
    if b"\x7f" in text:
        return text, spans
    pieces: list[bytes] = []
    done = at = close = 0
    for _ in range(_MOST_LIFTED):
        if (at := text.find(_DATA, at)) < 0:
            break
        at += len(_DATA)
        found = _COLON_ARRAY.match(text, at)
        if found is None:
            continue
        start = found.end()
        if close < start:  # else it is still the next one: a text of many openings stays linear
            close = text.find(b"]", start)
            if close < 0:
                break
        end = close + 1
        if all(text.find(mark, start + 1, end) < 0 for mark in (b'"', b"[", b"{")):
            pieces += (text[done:start], _LIFTED % len(spans))
            spans.append((start, end))
            done = at = end
    pieces.append(text[done:])
    return b"".join(pieces), spans
