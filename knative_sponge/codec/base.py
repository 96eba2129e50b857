"""What every protocol codec offers: parse one request, merge several, split the answer. Bytes in, bytes out;
no sockets, no clocks, no scheduling."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Headers = Sequence[tuple[bytes, bytes]]
"""Header pairs as received, names lower-case."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of an HTTP request as it arrived.

    target: raw path and query, exactly as on the wire.
    headers: names lower-case, order and duplicates kept.
    """

    method: str
    target: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """A CloudEvent, whichever mode it came in; at least `specversion`, `id`, `source` and `type` are there.

    attributes: by name, extensions too, each as its canonical text, percent-decoded; `datacontenttype` when known.
    data: what the body is in binary mode; empty when the event has none.
    """

    attributes: Mapping[str, str]
    data: bytes

    @property
    def id(self) -> str:
        """Unique among all events of its source."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Who it comes from, a URI reference."""
        return self.attributes["source"]

    @property
    def type(self) -> str:
        """What kind of event it is."""
        return self.attributes["type"]


@dataclass(frozen=True, slots=True)
class Part:
    """One parsed request, ready to be merged with others of the same group.

    rows: rows it contributes to a batch, at least 1.
    group: equal for two requests exactly when they may share one upstream call.
    head, body: the request as received, for sending it alone unchanged.
    detail: what the codec needs to merge it and to split the answer; opaque to everyone else.
    event: the event it came as, None for a plain request.
    unwrapped: head and body are those of a plain request made of the event's data, so its answer is no event yet.
    """

    rows: int
    group: Hashable
    head: RequestHead
    body: bytes
    detail: Any = None
    event: CloudEvent | None = None
    unwrapped: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One upstream request."""

    method: str
    target: bytes
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete response: the model server's to a call, or one client's share of it."""

    status: int
    headers: Headers
    body: bytes


class Codec(Protocol):
    """A protocol whose requests can be merged (docs/design.md §3.1, annotation `protocol`)."""

    name: str

    def wants(self, head: RequestHead) -> bool:
        """Whether this request is an inference call of the protocol, judged by its head alone.

        False sends it through unbuffered and unmerged.
        """
        ...

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """Understand one request. Raises BadRequest when the body is not what the protocol says."""
        ...

    def merge(self, parts: Sequence[Part]) -> Call:
        """One upstream call for parts of equal group, in order. A single part is sent byte for byte as received."""
        ...

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """Each part's own answer to a merged call with a 2xx status, in order.

        Raises UpstreamMismatch when the rows do not add up, UpstreamBroken when the answer is not of the protocol.
        """
        ...
