"""Headers that a revision's setting lets count though merging would lose them (`keep-apart`). Reads no body."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from knative_sponge.codec.base import Answer, Call, Codec, Headers, Part, RequestHead


class ApartCodec:
    """Codec that merges as another one does, but only requests whose named headers are equal too; merged calls carry them.

    names: lower-case. For model servers that limit, allow or answer by what `codec.headers` says is lost, such as
    `x-forwarded-for`.
    """

    def __init__(self, inner: Codec, names: Iterable[str]) -> None:
        self._inner = inner
        self._names = frozenset(name.encode() for name in names)
        self.name: str = inner.name

    def wants(self, head: RequestHead) -> bool:
        """As the inner codec does."""
        return self._inner.wants(head)

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """As the inner codec does."""
        part = self._inner.parse(head, body)
        named = self._named(head.headers)  # an event's own too, though its data goes without them
        return replace(part, group=(part.group, *sorted(named, key=lambda pair: pair[0])))

    def merge(self, parts: Sequence[Part]) -> Call:
        """As the inner codec does, with the named headers that it left out."""
        call = self._inner.merge(parts)
        if len(parts) == 1:
            return call
        there = {name for name, _ in call.headers}
        lost = [pair for pair in self._named(parts[0].head.headers) if pair[0] not in there]
        return replace(call, headers=[*call.headers, *lost])

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """As the inner codec does."""
        return self._inner.split(parts, answer)

    def _named(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        return [pair for pair in headers if pair[0] in self._names]
