"""A request's target as any server may read it. What is sent on is the target as it came; nothing here rewrites one.

Servers differ in what they take for the same path. Starlette decodes and then matches; Go's ServeMux and nginx merge slashes
and resolve dots as well, and OpenVINO's server takes `//v1` for `/v1`; Envoy can do both, and take an escaped slash for a
slash; servlets leave out `;parameters`; TensorFlow Serving ignores case; a chain of two servers decodes twice. A request
that any of them would compute is one for the queue: let past it, it would run beside the batch that the queue has planned.
The price of a wrong guess is a 404 that has waited its turn. Requests merge only when their targets are equal byte for byte
(each codec's group), so no two spellings ever share a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

_ODD: Final = re.compile(rb"[%;\\A-Z]|/[/.]|/\Z")
"""Without any of these a path has one reading."""
_LONGEST: Final = 1024
"""Bytes of a path that is read in every way. A longer one that is spelled oddly is taken for a match: it may wait, too."""
_ESCAPED_SLASH: Final = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)
_PARAMETERS: Final = re.compile(rb";[^/]*")
_SLASHES: Final = re.compile(rb"[/\\]+")


def matches(pattern: re.Pattern[bytes], target: bytes) -> bool:
    """Whether the path of the target is a full match in one of the ways in which a server may read it.

    pattern: of a lower-case path without a slash at its end.
    """
    path = target.partition(b"?")[0] if b"?" in target else target
    if pattern.fullmatch(path):
        return True
    if _ODD.search(path) is None:
        return False
    return len(path) > _LONGEST or any(map(pattern.fullmatch, readings(path)))


def readings(path: bytes) -> Iterator[bytes]:
    """The path in lower case without `//`, `/./`, `/../` and a last slash: raw, decoded, decoded twice. An escaped slash is a
    slash, or a letter like any other; parameters belong to the path, or not; and a NUL is where programs in C see its end."""
    decoded = {path: None}  # a set that keeps the order
    for _ in range(2):
        for one in list(decoded):
            if b"%" in one:
                decoded[unquote_to_bytes(one)] = None
                decoded[unquote_to_bytes(_ESCAPED_SLASH.sub(b"_", one))] = None
    for one in decoded:
        lower = one.lower()
        yield _cleaned(lower)
        if b";" in lower:
            yield _cleaned(_PARAMETERS.sub(b"", lower))
        if b"\0" in lower:
            yield _cleaned(lower.partition(b"\0")[0])


def _cleaned(path: bytes) -> bytes:
    kept: list[bytes] = []
    for segment in _SLASHES.split(path):
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    return b"/" + b"/".join(kept)
