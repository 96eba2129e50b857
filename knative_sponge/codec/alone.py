"""Requests that wait by deadline and are never merged: each is a call of its own, byte for byte. No body is read."""

from __future__ import annotations

from collections.abc import Sequence

from knative_sponge.codec.base import Answer, Call, Part, RequestHead
from knative_sponge.codec.headers import header

# Methods that carry work. Health checks, metadata and upgrades come by GET and the like and must not wait behind work.
_WORK = frozenset({"POST", "PUT", "PATCH"})


class AloneCodec:
    """Codec for servers of any protocol (docs/design.md §3.1, protocol `none`): requests wait by deadline, none are merged."""

    name: str = "none"

    def wants(self, head: RequestHead) -> bool:
        """Every POST, PUT and PATCH, but gRPC: its streams cannot be buffered."""
        declared = header(head.headers, b"content-type") or b""
        return head.method in _WORK and not declared.lower().startswith(b"application/grpc")

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """A part of one row that shares its group with no other."""
        return Part(1, object(), head, body)

    def merge(self, parts: Sequence[Part]) -> Call:
        """The one part's request, byte for byte."""
        (part,) = parts
        return Call(part.head.method, part.head.target, part.head.headers, part.body)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """The answer itself."""
        (_,) = parts
        return [answer]
