"""Heads, trailers and chunk frames, from clients and from the model server: as long as they may be, and longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from knative_sponge.proxy.http.head_limits import HeadLimits
from knative_sponge.proxy.http.headers import Pair, end_to_end, inbound
from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.http.reader import RequestReader
from knative_sponge.proxy.server import build
from knative_sponge.proxy.upstream.pool import Upstream
from tests.hostile.proxy_process import proxy_process
from tests.proxy.harness import SETTINGS, answering, model_server, ok, on_loop, proxy
from tests.proxy.wire import LOCAL, Reply, body_of, client

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMITS = HeadLimits()


class GoLimits(HttpProtocol):
    head_limits = HeadLimits(2**20, 100_000)


async def told(request: bytes, protocol: type[HttpProtocol] = HttpProtocol) -> Reply:
    """The answer to these bytes, sent as they are; the model server reads a request whole and says `ok`."""
    async with (
        model_server(answering(ok())) as fake,
        proxy(fake, protocol=protocol) as port,
        client(port) as one,
    ):
        one.writer.write(request)
        return await one.reply("POST")


def lines(count: int, size: int = 4) -> bytes:
    """So many fields of so many bytes each."""
    return (b"a:" + b"b" * (size - 4) + b"\r\n") * count


CONNECTIONS = [(b"connection", b"x%d" % n) for n in range(4_000)] + [(b"y%d" % n, b"") for n in range(60_000)]
ROUTES = [(b"x-forwarded-for", b"1.2.3.4")] * 280_000


@pytest.mark.parametrize(
    ("work", "fields"),
    [
        pytest.param(end_to_end, CONNECTIONS, id="4,000 Connection fields and 60,000 others"),
        pytest.param(lambda fields: inbound(fields, b"9.9.9.9", b"h"), ROUTES, id="280,000 X-Forwarded-For fields"),
    ],
)
def test_the_work_on_fields_grows_with_their_number_and_not_with_its_square(
    work: Callable[[list[Pair]], object], fields: list[Pair]
) -> None:
    began_s = time.process_time()
    work(fields)
    assert time.process_time() - began_s < 0.5


def test_the_heads_that_held_the_proxy_up_cost_it_next_to_nothing() -> None:
    with proxy_process() as target:
        attacks = (
            b"Connection: x\r\n" * 4_000 + b"y:\r\n" * 60_000,
            b"X-Forwarded-For: 1.2.3.4\r\n" * 28_000,
            b"a" * 2**20,
        )
        for attack in attacks:
            with target.connect() as one:
                before_s = target.cpu_s()
                one.sendall(GET + attack + b"\r\n")
                assert one.recv(2**16).startswith(b"HTTP/1.1 431 ")
                assert target.probe() < 1.0
                assert target.cpu_s() - before_s < 0.5


class _Owner:
    """Takes requests and keeps nothing but how many, and the last one's fields."""

    buffered = 0
    count = 0

    def __init__(self) -> None:
        self.trailers: list[Pair] = []
        self.headers: list[Pair] = []

    def request(self, *head: Any) -> Any:
        self.headers = head[3]
        return self

    def feed(self, body: bytes) -> None:
        pass

    def feed_end(self) -> None:
        self.count += 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(GET + b"a: ", b"\r\n\r\n", id="a field"),
        pytest.param(b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n", id="the target"),
        pytest.param(CHUNKED + b"0\r\na: ", b"\r\n\r\n", id="a trailer"),
        pytest.param(CHUNKED + b"0\r\n" + lines(2, 8_000) + b"a: ", b"\r\n\r\n", id="a trailer behind others"),
    ],
)
def test_a_head_that_comes_byte_by_byte_costs_no_more_than_its_bytes(before: bytes, after: bytes) -> None:
    size = 2**20 - 20_000
    owner = _Owner()
    reader = RequestReader(owner, GoLimits.head_limits)
    began_s = time.process_time()
    for at in range(len(before)):
        reader.feed(before[at : at + 1])
    for _ in range(size):
        reader.feed(b"b")
    reader.feed(after)
    assert time.process_time() - began_s < 3.0
    assert owner.count == 1
    assert size in {len(value) for _, value in (*owner.headers, *owner.trailers)} or b"/" in before[:5]


@on_loop
async def test_a_head_may_be_as_large_as_the_limit_and_no_larger() -> None:
    room = LIMITS.size - len(GET) - len(b"\r\n")
    assert (await told(GET + lines(1, room) + b"\r\n")).status == 200
    reply = await told(GET + lines(1, room + 1) + b"\r\n")
    assert (reply.status, reply.body) == (431, b"the request's head: too large; 65536 bytes are allowed\n")


@on_loop
async def test_blank_lines_and_spaces_count() -> None:
    assert (await told(b"\r\n" * 40_000 + GET + b"\r\n")).status == 431
    assert (await told(GET + b"a: " + b" " * LIMITS.size + b"b\r\n\r\n")).status == 431


@on_loop
async def test_a_head_may_have_as_many_fields_as_the_limit_and_no_more() -> None:
    assert (await told(GET + lines(LIMITS.fields - 1) + b"\r\n")).status == 200
    reply = await told(GET + lines(LIMITS.fields) + b"\r\n")
    assert (reply.status, reply.body) == (431, b"the request's head: too many fields; 256 are allowed\n")


@pytest.mark.parametrize("portion", [1, 3, 1000])
@on_loop
async def test_the_limits_do_not_depend_on_how_the_bytes_come(portion: int) -> None:
    class Small(HttpProtocol):
        head_limits = HeadLimits(200, 10)

    sized = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"\r\n" * 500
    chunked = CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"
    first = sized + GET + b"\r\n" + chunked + chunked
    second = sized + GET + lines(1, 150) + b"\r\n" + GET + lines(1, 200)
    async with (
        model_server(answering(ok())) as fake,
        proxy(fake, protocol=Small) as port,
        client(port) as one,
    ):
        for stream, statuses in ((first, [200] * 4), (second, [200, 200, 431])):
            for at in range(0, len(stream), portion):
                one.writer.write(stream[at : at + portion])
                await asyncio.sleep(0)
            assert [(await one.reply("POST")).status for _ in statuses] == statuses


@on_loop
async def test_a_large_head_behind_a_large_body_is_measured_for_itself() -> None:
    body = b"x" * 200_000
    sized = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        for _ in range(2):
            one.writer.write(sized + GET + lines(1, 60_000))
            assert (await one.reply("POST")).status == 200
            one.writer.write(b"\r\n")
            assert (await one.reply()).status == 200


@pytest.mark.parametrize(
    "trailers",
    [
        pytest.param(lines(LIMITS.fields + 1), id="fields"),
        pytest.param(lines(40, 2_000), id="bytes of many"),
        pytest.param(lines(1, 70_000), id="bytes of one"),
        pytest.param(b"a: " + b" " * 90_000 + b"\r\n", id="spaces"),
    ],
)
@on_loop
async def test_trailers_have_the_limits_of_heads(trailers: bytes) -> None:
    body = b"5\r\nhello\r\n0\r\n"
    assert (await told(CHUNKED + body + lines(LIMITS.fields) + b"\r\n")).status == 200
    assert (await told(CHUNKED + body + lines(30, 2_000) + b"\r\n")).status == 200
    assert (await told(CHUNKED + body + trailers + b"\r\n")).status == 431


@on_loop
async def test_a_trailer_without_an_end_is_not_kept() -> None:
    class Watched(HttpProtocol):
        seen = 0

        def data_received(self, data: bytes) -> None:
            if not self._ignoring_input:
                Watched.seen += len(data)
            super().data_received(data)

    reply = await told(CHUNKED + b"0\r\na: " + b"b" * 2**24, Watched)
    assert reply.status == 431
    assert Watched.seen < 2**20


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"5;" + b"x" * 17_500 + b"\r\nhello\r\n0\r\n\r\n", id="one extension"),
        pytest.param((b"1;" + b"x" * 200 + b"\r\na\r\n") * 100 + b"0\r\n\r\n", id="many extensions"),
        pytest.param(b"0;" + b"x" * 17_500 + b"\r\n\r\n", id="of the last chunk"),
        pytest.param(b"0" * 17_500 + b"5\r\nhello\r\n0\r\n\r\n", id="zeros before a size"),
        pytest.param(b"5;" + b"x" * 2**26, id="64 MiB"),
    ],
)
@on_loop
async def test_chunks_may_have_16_kib_beside_their_data(body: bytes) -> None:
    reply = await told(CHUNKED + body)
    assert (reply.status, reply.body) == (
        400,
        b"the request's body has too much beside its data; 16384 bytes are allowed\n",
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"1\r\na\r\n" * 100_000, id="a byte a chunk"),
        pytest.param(b"5;" + b"x" * 15_000 + b"\r\nhello\r\n", id="an extension"),
        pytest.param((b"400;" + b"x" * 2_000 + b"\r\n" + b"y" * 1024 + b"\r\n") * 100, id="as much as the data earns"),
        pytest.param(b"100000\r\n" + b"z" * 2**20 + b"\r\n", id="data"),
    ],
)
@on_loop
async def test_chunks_that_carry_data_pass_whatever_their_size(body: bytes) -> None:
    async def counts(wire: object) -> None:
        while True:
            received = await body_of(wire, await wire.head())  # type: ignore[arg-type, attr-defined]
            await wire.send(ok(b"%d" % len(received)))  # type: ignore[attr-defined]

    size = sum(body.count(letter) for letter in (b"a", b"h", b"e", b"l", b"o", b"y", b"z"))
    async with model_server(counts) as fake, proxy(fake) as port, client(port) as one:
        for _ in range(2):
            one.writer.write(CHUNKED + body + b"0\r\n\r\n")
            assert (await one.reply("POST")).body == b"%d" % size


@on_loop
async def test_a_content_length_of_thousands_of_zeros_is_refused() -> None:
    for end in (b"", b"5"):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"0" * 5_000 + end
        reply = await told(head + b"\r\n\r\nhello")
        assert (reply.status, reply.body) == (400, b"malformed Content-Length\n")


@on_loop
async def test_the_limits_are_settings() -> None:
    assert (await told(GET + lines(5_000, 200) + b"\r\n", GoLimits)).status == 200
    async with model_server(answering(ok())) as fake:
        settings = replace(SETTINGS, user_port=fake.port, max_head=1000, max_head_fields=5, stat_port=0)
        upstream = Upstream(LOCAL, fake.port)
        servers = build(settings, upstream=upstream)
        await servers.start()
        try:
            for field, status in ((b"", 200), (lines(5), 431), (lines(1, 1000), 431)):
                async with client(servers.data.port) as one:
                    await one.send(GET + field + b"\r\n")
                    assert (await one.reply()).status == status
        finally:
            await servers.stop()


ANSWER = b"HTTP/1.1 200 OK\r\n"
ANSWER_CHUNKED = ANSWER + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ANSWER + lines(1, 70_000) + b"Content-Length: 0\r\n\r\n", id="bytes"),
        pytest.param(ANSWER + lines(256) + b"Content-Length: 0\r\n\r\n", id="fields"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 3_000 + ok(), id="informational answers"),
    ],
)
@on_loop
async def test_a_model_servers_head_has_the_limits_of_a_requests(answer: bytes) -> None:
    async with model_server(answering(answer)) as fake, proxy(fake) as port, client(port) as one:
        reply = await one.get()
        assert (reply.status, reply.field(b"sponge-reason")) == (502, b"upstream-error")


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"0\r\n" + lines(257) + b"\r\n", id="fields of trailers"),
        pytest.param(b"0\r\n" + lines(1, 100_000) + b"\r\n", id="bytes of trailers"),
        pytest.param(b"0\r\na: " + b"b" * 2**24, id="a trailer without an end"),
        pytest.param(b"5;" + b"x" * 40_000 + b"\r\nhello\r\n0\r\n\r\n", id="an extension"),
    ],
)
@on_loop
async def test_what_a_model_server_frames_its_chunks_with_has_the_limits_of_a_requests(end: bytes) -> None:
    async with model_server(answering(ANSWER_CHUNKED + end)) as fake, proxy(fake) as port, client(port) as one:
        await one.send(GET + b"Connection: close\r\n\r\n")
        answer = await one.rest()
        assert answer.startswith(b"HTTP/1.1 502 ") or not answer.endswith(b"0\r\n\r\n")
        assert len(answer) < 2**17


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@on_loop
async def test_a_model_servers_length_of_thousands_of_zeros_is_a_502(method: bytes) -> None:
    answer = ANSWER + b"Content-Length: " + b"0" * 5_000 + b"5\r\n\r\nhello"
    async with model_server(answering(answer)) as fake, proxy(fake) as port, client(port) as one:
        await one.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await one.reply(method.decode())).status == 502


def test_a_limit_below_one_is_refused() -> None:
    for size, fields in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            HeadLimits(size, fields)
