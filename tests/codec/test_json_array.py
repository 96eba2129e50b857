"""Bare JSON arrays of rows: which requests they may be, and what cannot be cut."""

from __future__ import annotations

import pytest

from knative_sponge.codec.base import Answer, RequestHead
from knative_sponge.codec.json_array import JsonArrayCodec
from knative_sponge.errors import BadRequest, UpstreamBroken

CODEC = JsonArrayCodec()
JSON = (b"content-type", b"application/json")
GZIP = (b"content-encoding", b"gzip")


def head(*headers: tuple[bytes, bytes], method: str = "POST", target: bytes = b"/x") -> RequestHead:
    return RequestHead(method, target, headers or (JSON,))


def test_every_post_may_be_rows_and_nothing_else() -> None:
    assert CODEC.wants(head())
    assert not CODEC.wants(head(method="GET"))


def test_rows_merge_and_each_part_gets_its_own() -> None:
    parts = [CODEC.parse(head(), body) for body in (b"[[1],[2]]", b"[[3]]")]
    assert [part.rows for part in parts] == [2, 1]
    assert not any(part.unwrapped for part in parts), "none was an event"
    assert parts[0].group == parts[1].group
    call = CODEC.merge(parts)
    assert (call.method, call.target, call.body) == ("POST", b"/x", b"[[1],[2],[3]]")
    answer = Answer(201, [JSON, (b"content-length", b"7")], b"[4,5,6]")
    assert CODEC.split(parts, answer) == [
        Answer(201, [JSON, (b"content-length", b"5")], b"[4,5]"),
        Answer(201, [JSON, (b"content-length", b"3")], b"[6]"),
    ]


@pytest.mark.parametrize(
    "other",
    [
        (head(target=b"/y"), b"[[1]]"),
        (head(method="PUT"), b"[[1]]"),
        (head(JSON, (b"x-api-key", b"k")), b"[[1]]"),
        (head(), b"[[NaN]]"),
        (head(), b'["1"]'),
    ],
)
def test_what_another_server_might_answer_otherwise_stays_apart(other: tuple[RequestHead, bytes]) -> None:
    assert CODEC.parse(head(), b"[[1]]").group != CODEC.parse(*other).group


@pytest.mark.parametrize(
    "request_",
    [
        (head(), b"{}"),
        (head(), b"7"),
        (head(JSON, GZIP), b"[[1]]"),
        (head(JSON, GZIP), b"\x1f"),
        (head((b"content-type", b"text/plain")), b"["),
    ],
)
def test_what_is_no_array_of_rows_goes_alone_as_it_came(request_: tuple[RequestHead, bytes]) -> None:
    one, other = CODEC.parse(*request_), CODEC.parse(*request_)
    assert (one.rows, one.detail) == (1, None)
    assert one.group != other.group
    assert CODEC.merge([one]).body == request_[1]
    answer = Answer(200, (GZIP,), b"x")
    assert CODEC.split([one], answer) == [answer]


@pytest.mark.parametrize("headers", [(JSON,), ((b"accept", b"*/*"),)])
def test_a_body_that_claims_to_be_json_and_is_not_is_refused(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        CODEC.parse(head(*headers), b"[1")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [(Answer(200, (JSON,), b"[1"), "not JSON"), (Answer(200, (JSON, GZIP), b"[1,2]"), "compressed")],
)
def test_a_merged_answer_that_cannot_be_read_is_the_servers_fault(answer: Answer, fault: str) -> None:
    parts = [CODEC.parse(head(), b"[[1]]")] * 2
    with pytest.raises(UpstreamBroken, match=fault):
        CODEC.split(parts, answer)
