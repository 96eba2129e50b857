"""Invariant: a chunked body is read as another parser (h11) reads it, however TCP cuts it, and frames cost what they carry.

The input is what follows the head of a request that says `Transfer-Encoding: chunked`. Where it begins with a `!`, the head
offers to switch protocols as well, which is a way of its own through the reader.
"""

from __future__ import annotations

from typing import Final

import h11

from fuzz.engine.cost import Bound, Meter
from fuzz.engine.session import start
from fuzz.head import Recorder, check_refusals, check_same, cuts_of, read
from knative_sponge.proxy.http.head_limits import EXCESS, HeadLimits

BOUND: Final = Bound()
TOKENS: Final = (
    b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"\r\n", b"1;a=b\r\nx\r\n", b";ext", b';a="b;c"', b"0\r\nT: v\r\n\r\n",
    b"T: v\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Authorization: x\r\n",
    b"ffffffffffffffff\r\n", b"00000003\r\n", b"\n", b"3\nabc\n", b" ", b"\t",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"!", b"0x3\r\n", b"+3\r\n", b"-1\r\n", b" folded\r\n",
)  # fmt: skip

_HEAD: Final = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
_OFFER: Final = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n"
_JUDGED: Final = 2**17
_FREE_BYTES: Final = 17 * 1024
"""Bytes of a body's frames that carry nothing: 16 KiB, which Go's reader lets pass beyond those in proportion to the data,
and one more, because a reader that looks at every byte would be slow."""
_PER_CHUNK: Final = 16
_TRAILERS: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"authorization", b"cookie", b"trailer", b"te"}
)


def check(data: bytes, meter: Meter) -> None:
    """See the module."""
    stream = _OFFER + data[1:] if data[:1] == b"!" else _HEAD + data
    whole = meter(len(stream), read, stream, range(2**16, len(stream), 2**16))
    pieces = meter(len(stream), read, stream, cuts_of(stream))
    check_refusals(whole)
    check_same(whole, pieces, stream)
    for event in whole.events:
        if event[0] == "end":
            assert not {name for name, _ in event[2]} & _TRAILERS, "a trailer says what only a head may say"
    if len(stream) <= _JUDGED and len(whole.events) > 1 and whole.events[1][0] == "end":
        check_body(stream, whole)


def check_body(stream: bytes, found: Recorder) -> None:
    """Body and trailers are those that h11 reads, where it reads any; and what framed them is not the most of them."""
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * _JUDGED)
    body, chunks = bytearray(), 0
    try:
        other.receive_data(stream)
        other.next_event()
        while isinstance(event := other.next_event(), h11.Data):
            body += event.data
            chunks += event.chunk_start
    except h11.RemoteProtocolError:
        return
    if not isinstance(event, h11.EndOfMessage):
        return
    _, own_body, trailers = found.events[1]
    assert own_body == bytes(body)
    theirs = [(name, value) for name, value in event.headers]
    assert [(name, b"".join(value.split())) for name, value in trailers] == [
        (name, b"".join(value.split())) for name, value in theirs if name in {own for own, _ in trailers}
    ]
    idle = (
        len(stream)
        - len(other.trailing_data[0])
        - len(body)
        - sum(len(name) + len(value) + 4 for name, value in theirs)
    )
    if theirs:
        idle -= HeadLimits().size + EXCESS  # they have a limit of their own, blanks included
    allowed = _FREE_BYTES + len(_OFFER) + _PER_CHUNK * (chunks + 1) + 2 * len(body)
    assert idle <= allowed, f"{idle:,} bytes of frames around {len(body):,} of body pass"


if __name__ == "__main__":
    start("chunked_body")
