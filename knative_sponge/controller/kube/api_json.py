"""The API server's JSON: objects, pages of a list, events of a watch. Pure; raises ValueError for any other JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import msgspec

from knative_sponge.controller.kube.resource import Object

_LONGEST_EVENT: Final = 16 * 2**20

Text: TypeAlias = bytes | msgspec.Raw
"""JSON."""


class Page(msgspec.Struct):
    """One page of a list, its objects not decoded yet."""

    metadata: dict[str, Any]
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """One event of a watch, its object not decoded yet."""

    type: str
    object: msgspec.Raw


read_page: Final = msgspec.json.Decoder(Page).decode
read_event: Final = msgspec.json.Decoder(WatchEvent).decode


def read_object(text: Text) -> Object:
    """An object with all its fields."""
    return msgspec.json.decode(text, type=dict[str, Any])


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""
    uid: str = ""
    version: str = msgspec.field(default="", name="resourceVersion")


class _Named(msgspec.Struct):
    metadata: _Metadata


_read_named: Final = msgspec.json.Decoder(_Named).decode


def read_metadata(text: Text) -> Object:
    """What names an object, of an object that is otherwise not understood. Raises ValueError where not even that is there."""
    return dict(msgspec.to_builtins(_read_named(text).metadata))


async def lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of at most _LONGEST_EVENT bytes, else ValueError. aiohttp's own readline refuses objects larger than its buffer."""
    rest = bytearray()
    async for data in pieces:
        start = len(rest)
        rest += data
        if b"\n" in data:
            *complete, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in complete:
                if line.strip():
                    yield line
        elif start > _LONGEST_EVENT:
            raise ValueError("an event is too long")
