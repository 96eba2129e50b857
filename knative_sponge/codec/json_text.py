"""One JSON text, read level by level without decoding a number or copying a tensor. Nothing here knows a protocol.

msgspec checks the grammar and finds the members at C speed; values stay the bytes that came. A tensor's flat array is
lifted out before that, so that its bytes are walked once and not once per level.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from knative_sponge.codec.array import Array

_ANY = msgspec.json.Decoder(msgspec.Raw)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OPEN = re.compile(rb"\s*+,?\s*+\{")
_KEY = re.compile(rb"\s*+,?\s*+" + _STRING + rb"\s*+:\s*+", re.DOTALL)
_CLOSE = re.compile(rb"\s*+\}")
# Python, TensorFlow and RapidJSON read and write these although JSON has no such numbers.
_NONFINITE = re.compile(rb"(?<![\w.+-])(?:NaN|-?Inf(?:inity)?)\b")
_STRING_OR_NONFINITE = re.compile(_STRING + rb"|" + _NONFINITE.pattern, re.DOTALL)
_LONE_SURROGATE = re.compile(rb"\\(?:u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL)
_DATA = b'"data"'
_MOST_LIFTED = 1000
_COLON_ARRAY = re.compile(rb"\s*+:\s*+(?=\[)")

# DEL may stand in a JSON string but hardly ever does; a text that has it is read without these marks.
_LIFTED = b'"\x7f%d"'
_LIFTED_INDEX = re.compile(rb'"\x7f(\d+)"')
_MASKED = re.compile(rb'"\x7f\x7f([^"]*)"')


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
                self._text.decode()
            except UnicodeDecodeError as error:
                raise JsonError(str(error)) from error
        view = memoryview(self._text)
        for start, end in self._spans:
            try:
                _ANY.decode(view[start:end])
            except msgspec.DecodeError as error:
                finite, tokens = _NONFINITE.subn(b"0", view[start:end])
                if not tokens or _fault(finite):
                    raise JsonError(str(error)) from error
                self.nonfinite = True

    def members(self, raw: bytes) -> dict[str, bytes]:
        """The members of an object, values as they stand. Raises JsonError when it is none or repeats a key."""
        read: dict[str, bytes] = self._decode(_MEMBERS, raw)
        _past_object(raw, 0, read)
        return read

    def objects(self, raw: bytes) -> list[dict[str, bytes]]:
        """The members of each object in an array. Raises JsonError as `members` does."""
        read: list[dict[str, bytes]] = self._decode(_OBJECTS, raw)
        at = raw.index(b"[") + 1
        for item in read:
            at = _past_object(raw, at, item)
        return read

    def elements(self, raw: bytes) -> list[bytes]:
        """The elements of an array, as they stand. Raises JsonError when it is none."""
        read: list[bytes] = self._decode(_ELEMENTS, raw)
        return read

    def string(self, raw: bytes) -> str:
        """A decoded string. Raises JsonError when it is none."""
        try:
            return msgspec.json.decode(raw, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JsonError(str(error)) from error

    def array(self, raw: bytes) -> Array:
        """The array a value stands for, lifted or not. Raises JsonError when it is none."""
        if lifted := _LIFTED_INDEX.fullmatch(raw):
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

    def _decode(self, decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
        try:
            return _plain(decoder.decode(raw))
        except RecursionError as error:
            raise JsonError("nested too deeply") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            masked = _mask_nonfinite(raw)
            if masked is None:
                raise JsonError(str(error)) from error
            try:
                read = decoder.decode(masked)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise JsonError(str(error)) from error
        self.nonfinite = True
        return _plain(read, unmask=True)


def json_fault(text: bytes) -> str | None:
    """Why no JSON reader can accept the text, or None when some do.

    Lenient on purpose, because a request is refused for it: NaN and Infinity, lone surrogates, other encodings of
    Unicode and any depth pass.
    """
    fault = _fault(text)
    if fault is None or json.detect_encoding(text) != "utf-8":
        return None
    lenient = _STRING_OR_NONFINITE.sub(_strict, text)
    return fault if _fault(lenient) else None


def object_tail(members: Mapping[str, bytes]) -> bytes:
    """The end of an object that already has a member: `,"key":value…}`."""
    pairs = [b"," + msgspec.json.encode(key) + b":" + value for key, value in members.items()]
    return b"".join([*pairs, b"}"])


def _fault(text: bytes) -> str | None:
    try:
        _ANY.decode(text)
    except msgspec.DecodeError as error:
        return str(error)
    except RecursionError:
        return None
    return None


def _strict(token: re.Match[bytes]) -> bytes:
    found = token[0]
    if not found.startswith(b'"'):
        return b"0"
    return _LONE_SURROGATE.sub(lambda escape: b"\\n" if len(escape[0]) > 2 else escape[0], found)


def _plain(read: Any, *, unmask: bool = False) -> Any:
    """Raw values as bytes, masked tokens as they were."""
    if isinstance(read, list):
        return [_plain(item, unmask=unmask) for item in read]
    if isinstance(read, dict):
        return {key: _plain(value, unmask=unmask) for key, value in read.items()}
    return _MASKED.sub(rb"\1", bytes(read)) if unmask else bytes(read)


def _mask_nonfinite(raw: bytes) -> bytes | None:
    """The text with NaN and Infinity as marked strings; None when it has none or the mark is taken."""
    if b"\x7f\x7f" in raw:
        return None
    masked = _STRING_OR_NONFINITE.sub(
        lambda found: found[0] if found[0].startswith(b'"') else b'"\x7f\x7f' + found[0] + b'"', raw
    )
    return masked if len(masked) > len(raw) else None


def _past_object(raw: bytes, at: int, members: Mapping[str, bytes]) -> int:
    """The offset after the object at `at`. A repeated key leaves text that its members do not account for."""
    at = _past(_OPEN, raw, at)
    for value in members.values():
        at = _past(_KEY, raw, at) + len(value)
    return _past(_CLOSE, raw, at)


def _past(token: re.Pattern[bytes], raw: bytes, at: int) -> int:
    found = token.match(raw, at)
    if found is None:
        raise JsonError("a key is repeated")
    return found.end()


def _lift(text: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Replace each flat array after a key `data` by a mark.

    In JSON an unescaped `"data"` before a colon ends a key, and an array without quotes, brackets and braces inside is
    over at its first `]`: no other knowledge of the text is needed. What is left after many stays where it is.
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
