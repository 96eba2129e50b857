"""JSON arrays whose elements are rows: V1's instances and predictions, and bare arrays. No requests or answers here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knative_sponge.codec.json.array import Array
from knative_sponge.codec.json.skeleton import Skeleton, has_many_strings
from knative_sponge.codec.json.text import JsonError, JsonText
from knative_sponge.errors import UpstreamMismatch


@dataclass(frozen=True, slots=True)
class Rows:
    """At least one row, all of one structure.

    elements: the array without its brackets. kind: equal for rows of equal structure (nesting, lengths, keys, kinds of
    values): a model stacks rows, and one odd row would fail its whole batch.
    """

    count: int
    elements: memoryview
    kind: bytes


def read_rows(text: JsonText, raw: bytes) -> Rows | None:
    """The rows of an array; None when it has none, they differ in structure, or they have very many strings.

    JsonError when it is none.
    """
    first = text.first(raw)
    if first is None or has_many_strings(raw):
        return None
    kind = Skeleton.of(first)
    array = raw.strip()
    is_all = len(array) == len(first) + len(b"[]")
    del first  # it may be nearly all of the array
    count = 1 if is_all else kind.times_in(Skeleton.of(array))
    if count is None:
        return None
    return Rows(count, Array(array, 0, len(array), flat=False).inner, kind.digest())


def merge_rows(rows: Sequence[Rows], before: bytes = b"", after: bytes = b"") -> bytes:
    """One array of all rows, in order, between `before` and `after`; the rows are copied once."""
    pieces: list[bytes | memoryview] = [before, b"["]
    for item in rows:
        pieces += (item.elements, b",")
    pieces[-1] = b"]"
    return b"".join([*pieces, after])


def cut_rows(text: JsonText, raw: bytes, counts: Sequence[int]) -> list[bytes]:
    """The array's elements in arrays of `counts`. Raises UpstreamMismatch when it has another number or is no array."""
    try:
        rows = text.elements(raw, sum(counts))
    except JsonError as error:
        raise UpstreamMismatch(f"the answer has no list of the {sum(counts)} rows that were asked: {error}") from error
    if len(rows) != sum(counts):
        raise UpstreamMismatch(f"the answer has {len(rows)} rows; {sum(counts)} were asked")
    arrays = []
    at = 0
    for count in counts:
        arrays.append(b"[" + b",".join(rows[at : at + count]) + b"]")
        at += count
    return arrays
