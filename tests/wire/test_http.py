"""HTTP of the admin port's clients: requests as bytes, and answers that come in any pieces or are none."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.errors import WireError
from knative_sponge.settings import ProxySettings
from knative_sponge.wire.http import ADMIN_PORT, CORES_PATH, STATE_PATH, AnswerReader, bracketed, request

BODY = b'{"a":1}\n{"b":[2,3]}\n'


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    pieces = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"transfer-encoding: Chunked\r\n\r\n" + pieces + b"0\r\n" + trailers + b"\r\n"


ANSWERS = [
    pytest.param(chunked(BODY), id="chunked"),
    pytest.param(chunked(BODY[:1], BODY[1:5], BODY[5:]), id="chunks of any size"),
    pytest.param(chunked(BODY, trailers=b"expires: 0\r\nx: y\r\n"), id="trailers"),
    pytest.param(b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, id="length"),
    pytest.param(b"content-type: text/plain\r\n\r\n" + BODY, id="until close"),
    pytest.param(b"content-length: 3\r\n" + chunked(BODY), id="chunks count, not the length before them"),
    pytest.param(
        chunked(BODY).replace(b"\r\n", b"\r\ncontent-length: 3\r\n", 1), id="chunks count, not the length after them"
    ),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_where_an_answer_is_cut_does_not_matter(answer: bytes) -> None:
    whole = b"HTTP/1.1 200 OK\r\n" + answer

    @given(st.lists(st.integers(0, len(whole)), max_size=6))
    def cut(cuts: list[int]) -> None:
        ends = sorted(cuts)
        reader = AnswerReader(200)
        pieces = [whole[begin:end] for begin, end in zip([0, *ends], [*ends, len(whole)], strict=True)]
        assert b"".join(map(reader.feed, pieces)) == BODY
        reader.finish()
        assert reader.ended

    cut()


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_may_come_byte_by_byte_and_is_over_with_its_last_one(answer: bytes) -> None:
    reader, whole, body = AnswerReader(200), b"HTTP/1.0 200\r\n" + answer, b""
    for at in range(len(whole)):
        assert not reader.ended
        body += reader.feed(whole[at : at + 1])
    assert body == BODY
    assert reader.ended is not answer.startswith(b"content-type")
    reader.finish()


@pytest.mark.parametrize("answer", ANSWERS[:4])
def test_an_answer_that_ends_early_is_an_error(answer: bytes) -> None:
    whole = b"HTTP/1.1 200 OK\r\n" + answer
    for end in range(len(whole)):
        reader = AnswerReader(200)
        reader.feed(whole[:end])
        with pytest.raises(WireError, match="early"):
            reader.finish()


def test_what_comes_after_the_end_is_passed_over() -> None:
    reader = AnswerReader(200)
    assert reader.feed(b"HTTP/1.1 200 OK\r\n" + chunked(BODY) + b"HTTP/1.1 500 No\r\n\r\n") == BODY
    assert reader.feed(b"more") == b""


def test_an_answer_without_content_is_over_with_its_head() -> None:
    reader = AnswerReader(204)
    reader.feed(b"HTTP/1.1 204 No Content\r\nserver: x\r\n")
    assert not reader.ended
    reader.feed(b"\r\n")
    assert reader.ended


@pytest.mark.parametrize("status", [100, 204, 301, 401, 503])
def test_another_status_is_an_error_that_carries_it(status: int) -> None:
    with pytest.raises(WireError, match=str(status)) as caught:
        AnswerReader(200).feed(b"HTTP/1.1 %d Whatever\r\n" % status)
    assert caught.value.status == status


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKS = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", id="something else listens"),
        pytest.param(b"HTTP/2 200 OK\r\n", id="another HTTP"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 20\r\n", id="half a status"),
        pytest.param(b"x" * 9000, id="a line without end"),
        pytest.param(HEAD + b"x: y\r\n" * 3000, id="a head without end"),
        pytest.param(HEAD + b"content-length: -1\r\n\r\n", id="a negative length"),
        pytest.param(HEAD + b"content-length: 1_0\r\n\r\n", id="a length of Python's"),
        pytest.param(CHUNKS + b"zz\r\n", id="no size"),
        pytest.param(CHUNKS + b"-1\r\n", id="a negative size"),
        pytest.param(CHUNKS + b"0x1\r\n", id="a size of Python's"),
        pytest.param(CHUNKS + b"\r\n", id="an empty size"),
        pytest.param(CHUNKS + b"fffffffff\r\n", id="a size beyond all"),
        pytest.param(CHUNKS + b"1\r\nab\r\n", id="a chunk longer than its size"),
        pytest.param(CHUNKS + b"0\r\n" + b"x: y\r\n" * 3000, id="trailers without end"),
    ],
)
def test_what_is_no_answer_is_an_error_however_it_is_cut(answer: bytes) -> None:
    with pytest.raises(WireError):
        AnswerReader(200).feed(answer)
    reader = AnswerReader(200)
    with pytest.raises(WireError):
        deque(map(reader.feed, (answer[at : at + 1] for at in range(len(answer)))))


def test_a_request_has_these_bytes() -> None:
    assert request("PUT", CORES_PATH, "10.0.0.1", 8022, "t-1", b"{}") == (
        b"PUT /sponge/v1/cores HTTP/1.1\r\nhost: 10.0.0.1:8022\r\nconnection: close\r\nauthorization: Bearer t-1\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )
    assert request("GET", STATE_PATH, "fd00::1", 80, None) == (
        b"GET /sponge/v1/state HTTP/1.1\r\nhost: [fd00::1]:80\r\nconnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("token", ["a\r\nx: y", "a\nb", "tökén"])
def test_a_token_that_no_head_can_carry_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=r"line break|ascii"):
        request("GET", STATE_PATH, "10.0.0.1", 80, token)


def test_only_addresses_with_colons_are_bracketed() -> None:
    assert [bracketed(each) for each in ("10.0.0.1", "::1", "localhost")] == ["10.0.0.1", "[::1]", "localhost"]


def test_a_proxy_listens_where_its_clients_look_for_it() -> None:
    assert ProxySettings.__dataclass_fields__["admin_port"].default == ADMIN_PORT
