"""Invariant: whatever a client sends as heads, requests are read or refused, the same ones however TCP cuts the bytes, and
what goes to the model server is read there as what was read here.

An input that begins with `HTTP/` is a model server's answer: it is read, or the connection is given up, however it comes.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import h11

from fuzz.engine.cost import Bound, Meter
from fuzz.engine.session import start
from fuzz.refusals import check_refusal
from knative_sponge.codec.base import RequestHead
from knative_sponge.codec.headers import header_key
from knative_sponge.codec.select import codec_for
from knative_sponge.core.batching.deadline import ClientBudget, Deadline, claims_of, deadline_of
from knative_sponge.errors import BadRequest, RequestFailed
from knative_sponge.proxy.http.head_limits import HeadLimits
from knative_sponge.proxy.http.headers import Pair, end_to_end, inbound, request_head
from knative_sponge.proxy.http.reader import RequestReader
from knative_sponge.proxy.http.scope import http_scope
from knative_sponge.proxy.upstream.connection import Connection

BOUND: Final = Bound()
TOKENS: Final = (
    b"GET / HTTP/1.1\r\n", b"POST /v2/models/m/infer HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n", b"GET http://b/c HTTP/1.1\r\n", b"HTTP/1.0\r\n", b"Host: a\r\n",
    b"Connection: x-a\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n", b"X-Forwarded-For: 10.0.0.1\r\n",
    b"X-Forwarded-For: ::1, 10.0.0.1\r\n", b"X-Forwarded-Proto: https\r\n", b"Forwarded: for=a\r\n",
    b"K-Original-Host: b\r\n", b"Expect: 100-continue\r\n", b"TE: trailers\r\n", b"X-A: b\r\n",
    b"x-sponge-slo-ms: 100\r\n", b"x-sponge-deadline: 1700000000000\r\n", b"grpc-timeout: 100m\r\n",
    b"x-request-start: t=1\r\n", b"ce-time: 2030-01-01T00:00:00Z\r\n", b"ce-specversion: 1.0\r\n", b"\r\n", b"\n",
    b" ", b"\t", b",", b":", b"%2F", b"//", b"?", b"\r\n\r\n", b"\r\n folded\r\n", b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n", b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
)  # fmt: skip

HEAD_BYTES: Final = 64 * 1024
FIELDS: Final = 256
"""What the data port lets in by default: other targets begin where it ends."""
_PIECE: Final = 2**16
_JUDGED: Final = 2**15
"""Bytes of an input up to which it is also read by others, which are slower."""
_NO_PEER: Final = (b"content-length", b"transfer-encoding")
_STATUSES: Final = frozenset({400, 413, 414, 417, 431, 501, 505})
_CODECS: Final = [codec_for(name) for name in ("auto", "cloudevents", "json-array", "none")]
_NOTHING: Final = ("nothing",)
_BLANK_LINES: Final = re.compile(rb"(?:\r?\n){100}")
_TOO_LARGE: Final = ("refused", 431)

Event = tuple[Any, ...]


class Recorder:
    """A request reader's owner and its requests: does with each head what the data port does before a byte of body."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.forwarded: list[tuple[str, bytes, list[Pair]]] = []
        self.error: Exception | None = None
        self.buffered = 0
        self.trailers: list[Pair] = []
        self._body = bytearray()

    def request(
        self, method: str, version: str, target: bytes, headers: list[Pair], keep_alive: bool, upgrade: bytes
    ) -> Recorder:
        """A head is complete. An error is noted, because the parser in C makes a refusal of whatever is raised here."""
        try:
            self._take(method, version, target, headers)
        except RequestFailed:
            raise
        except Exception as error:
            self.error = error
            raise
        self.events.append(("head", method, version, target, tuple(headers), keep_alive, upgrade))
        self.trailers = []
        return self

    def _take(self, method: str, version: str, target: bytes, headers: list[Pair]) -> None:
        scope = http_scope(method, version, target, headers, "http", ("127.0.0.1", 1), ("127.0.0.1", 2))
        fields = inbound(scope["headers"], b"127.0.0.1", b"127.0.0.1:8080")
        head = RequestHead(method, scope["sponge.target"], fields)
        for codec in _CODECS:
            codec.wants(head)
        hash(header_key(fields))
        deadline(fields)
        fields = end_to_end(fields)
        request_head(method, scope["sponge.target"], fields)
        self.forwarded.append((method, scope["sponge.target"], fields))

    def expected(self) -> int:
        """Bytes of the body that are still to come."""
        return 0

    def feed(self, body: bytes) -> None:
        """More of the body."""
        self._body += body

    def feed_end(self) -> None:
        """The request is complete."""
        self.events.append(("end", bytes(self._body), tuple(self.trailers)))
        self._body.clear()


def deadline(headers: Sequence[Pair], attributes: Mapping[str, str] | None = None) -> Deadline:
    """When a request must be answered, found as the queue finds it; attributes of its event, if it is one."""
    claims = claims_of(headers, attributes)
    return deadline_of(
        claims,
        now=1.0,
        wall_now_s=1.7e9,
        slo_s=0.5,
        timeout_s=60.0,
        max_network_share=0.9,
        client_budget=ClientBudget.SHORTER,
    )


def new_reader(owner: Recorder) -> RequestReader:
    """A reader with the limits of the data port."""
    return RequestReader(owner, HeadLimits())


def read(data: bytes, cuts: Sequence[int]) -> Recorder:
    """What the reader makes of the bytes, which come in pieces that end at the cuts; a refusal is the last event."""
    owner = Recorder()
    reader = new_reader(owner)
    at = 0
    try:
        for cut in (*cuts, len(data)):
            behind = data[at:cut]
            at = cut
            while behind:
                behind = reader.feed(behind)  # an offer to switch protocols that nobody took: requests follow
    except RequestFailed as failure:
        owner.events.append(("refused", failure.status, failure))
    if owner.error is not None:
        raise owner.error
    return owner


def cuts_of(data: bytes) -> list[int]:
    """Where TCP may have cut the bytes: at every byte, in small pieces or in large ones, as the bytes themselves decide."""
    rng = random.Random(zlib.crc32(data))
    mean = rng.choice((1, 5, 50, 1500)) if len(data) <= 4096 else rng.choice((500, 1500, 9000))
    cuts, at = [], 0
    while (at := at + max(1, round(rng.expovariate(1 / mean)))) < len(data):
        cuts.append(at)
    return cuts


def check(data: bytes, meter: Meter) -> None:
    """See the module."""
    if data.startswith(b"HTTP/"):
        check_answer(data, meter)
        return
    whole = meter(len(data), read, data, range(_PIECE, len(data), _PIECE))
    pieces = meter(len(data), read, data, cuts_of(data))
    check_refusals(whole)
    check_same(whole, pieces, data)
    if len(data) <= _JUDGED:
        for method, target, fields in whole.forwarded:
            check_forwarded(method, target, fields)
        check_against_h11(data, whole)


class ModelServer(asyncio.Transport):
    """The transport of a connection to a model server that says what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    def abort(self) -> None:
        """The connection is given up."""
        self.cut = True

    def is_closing(self) -> bool:
        """Nothing is written to it any more."""
        return self.cut

    def pause_reading(self) -> None:
        """The bytes come all the same."""

    def resume_reading(self) -> None:
        """They never stopped."""


def receive(data: bytes, cuts: Sequence[int]) -> tuple[Connection, bool, bytes]:
    """The connection after an answer that comes in pieces, whether it was given up, and the body."""
    transport = ModelServer()
    connection = Connection(cast("asyncio.AbstractEventLoop", None), lambda _connection: None)
    connection.connection_made(transport)
    connection.begin("GET", upgrade=True)
    at = 0
    for cut in (*cuts, len(data)):
        if transport.cut or connection.complete:
            break
        connection.data_received(data[at:cut])
        at = cut
    return connection, transport.cut, connection.take()


def check_answer(data: bytes, meter: Meter) -> None:
    """The same answer however it comes; of one that is given up, what came before may be more or less."""
    one, one_cut, one_body = meter(len(data), receive, data, range(_PIECE, len(data), _PIECE))
    other, other_cut, other_body = meter(len(data), receive, data, cuts_of(data))
    if one.head_complete and other.head_complete:
        assert (one.status, one.headers, one.switched) == (other.status, other.headers, other.switched)
    if one_cut or other_cut:
        assert one_body.startswith(other_body) or other_body.startswith(one_body)
        return
    assert (one_body, one.complete, one.trailers) == (other_body, other.complete, other.trailers)
    assert [status for status, _ in one.informational] == [status for status, _ in other.informational]
    end_to_end(one.headers)


def check_refusals(found: Recorder) -> None:
    """What is refused is refused in few words and with a status that says why."""
    for event in found.events:
        if event[0] == "refused":
            assert isinstance(event[2], BadRequest)
            check_refusal(event[2], _STATUSES)


def check_same(whole: Recorder, pieces: Recorder, data: bytes) -> None:
    """The same events, however the bytes come, but for differences that lose no honest client a request.

    Bytes that are wrong in two ways may be refused for either. What frames a chunked body may be found to be too much a piece
    earlier or later, and so may a size, of what never becomes a request. A hundred blank lines count where they come at once.
    A head that comes with the end of a request before it may be 16 KiB larger than one that does not.
    """
    one, other = ([event[:2] if event[0] == "refused" else event for event in each.events] for each in (whole, pieces))
    events = enumerate(itertools.zip_longest(one, other, fillvalue=_NOTHING))
    at, pair = next(((at, pair) for at, pair in events if pair[0] != pair[1]), (0, None))
    if pair is None:
        return
    kind, *head = one[at - 1] if at else _NOTHING
    in_chunks = kind == "head" and b"transfer-encoding" in dict(head[3])
    kinds = {event[0] for event in pair}
    no_request = set(pair) == {_NOTHING, _TOO_LARGE} or (_TOO_LARGE in pair and _BLANK_LINES.search(data) is not None)
    behind = (
        at and _TOO_LARGE in pair and any(event[0] == "head" and _size(event) > HeadLimits().size for event in pair)
    )
    assert kinds == {"refused"} or no_request or behind or (in_chunks and "refused" in kinds), (
        f"whole: {pair[0]!r:.300}, in pieces: {pair[1]!r:.300}"
    )


def _size(event: tuple[Any, ...]) -> int:
    """Bytes of a head, at least."""
    _, method, version, target, fields, *_ = event
    return len(method) + len(version) + len(target) + 9 + sum(len(name) + len(value) + 3 for name, value in fields)


def check_forwarded(method: str, target: bytes, fields: list[Pair]) -> None:
    """A head that was let in is one head for the next reader too, with the same target and the same fields."""
    again = read(request_head(method, target, fields), ())
    kind, *seen = again.events[0]
    if kind == "refused" and (method == "CONNECT" or seen[0] == 431):
        return  # the fields that are added may make it larger than a client's may be
    assert kind == "head", again.events
    assert (seen[0], seen[2], list(seen[3])) == (method, target, fields)
    assert sum(event[0] == "head" for event in again.events) == 1


def check_against_h11(data: bytes, found: Recorder) -> None:
    """Where another parser accepts the first request as well, it is the same one: method, target, fields and body."""
    if not found.events or found.events[0][0] != "head" or (len(found.events) > 1 and found.events[1][0] != "end"):
        return
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * _JUDGED)
    body = b""
    try:
        other.receive_data(data)
        request = other.next_event()
        if not isinstance(request, h11.Request):
            return
        while isinstance(event := other.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError:
        return
    _, method, _, target, headers, *_ = found.events[0]
    assert (request.method, request.target) == (method.encode(), target)
    assert plain(request.headers) == plain(headers)
    if isinstance(event, h11.EndOfMessage) and len(found.events) > 1:
        assert body == found.events[1][1]


def plain(headers: Sequence[Pair]) -> list[Pair]:
    """Fields but those that parsers respell; blanks are left out, since folded lines are joined in different ways."""
    return [(name, b"".join(value.split())) for name, value in headers if name not in _NO_PEER]


if __name__ == "__main__":
    start("head")
