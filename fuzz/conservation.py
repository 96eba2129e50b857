"""What holds for every codec: a body is understood or refused, rows come back as they went, a merge costs what it carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fuzz.engine.cost import Meter
from fuzz.refusals import check_refusal
from knative_sponge.codec.base import Answer, Call, Codec, Headers, Part, RequestHead
from knative_sponge.errors import BadRequest, UpstreamBroken, UpstreamMismatch

JSON_LENGTH: Final = b"inference-header-content-length"
STATUSES: Final = frozenset({400, 413, 415})
MOST_ROWS: Final = 4096
"""Rows of a call at most, whatever the settings: a larger request goes alone."""
JUDGED: Final = 2**14
"""Bytes of a body up to which the standard library reads it too, number by number."""


def understood(codec: Codec, head: RequestHead, body: bytes, meter: Meter) -> list[Part]:
    """Two parts of one request, none where it is refused. A single one is sent as it came."""
    size = len(body) + sum(len(name) + len(value) for name, value in head.headers)
    try:
        parts = [meter(size, codec.parse, head, body), codec.parse(head, body)]
    except BadRequest as error:
        check_refusal(error, STATUSES)
        return []
    alone = codec.merge(parts[:1])
    assert parts[0].rows >= 1
    if not parts[0].unwrapped:
        assert alone == Call(head.method, head.target, head.headers, body)
    return parts


def merged(codec: Codec, parts: Sequence[Part], meter: Meter) -> Call:
    """The call of all parts: it states its length, and is read again as one request of as many rows."""
    call = meter(sum(len(part.body) for part in parts), codec.merge, parts)
    assert int(dict(call.headers)[b"content-length"]) == len(call.body)
    return call


def check_rows(codec: Codec, call: Call, rows: int) -> None:
    """A merged call is itself a request of the protocol, of so many rows."""
    again = codec.parse(RequestHead(call.method, call.target, call.headers), call.body)
    assert again.rows == rows, f"{again.rows} rows of {rows}"


def split(codec: Codec, parts: Sequence[Part], answer: Answer, meter: Meter) -> list[Answer]:
    """Each part's share, none where the answer is refused. A share states its length."""
    try:
        shares = meter(len(answer.body), codec.split, parts, answer)
    except (UpstreamBroken, UpstreamMismatch) as error:
        check_refusal(error, {502})
        return []
    assert len(shares) == len(parts)
    for share in shares:
        length = dict(share.headers).get(b"content-length")
        assert int(length) == len(share.body) if length is not None else not share.body
    return shares


def check_hostile_answer(codec: Codec, good: Sequence[Part], headers: Headers, body: bytes, meter: Meter) -> None:
    """The input as a model server's answer to two good requests: split or refused."""
    split(codec, good, Answer(200, headers, body), meter)


def is_one_group(parts: Sequence[Part]) -> bool:
    """Whether the parts may share a call."""
    return len({part.group for part in parts}) == 1 and sum(part.rows for part in parts) <= MOST_ROWS
