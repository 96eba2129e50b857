"""Probes that speak HTTP/2: gRPC's health service, and HTTP probes that find out which version a server speaks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from knative_sponge.proxy.knative.server_readiness import Readiness
from knative_sponge.settings import Probe
from tests.proxy.harness import answering, closed_port, model_server, ok, on_loop
from tests.proxy.wire import LOCAL, Wire

Fields = list[tuple[str, str]]
Answer = tuple[Fields, bytes, Fields]
ONCE = Probe(LOCAL, 0, period_s=10.0, timeout_s=5.0)


@dataclass
class Http2Server:
    """Answers each request with what `answer` makes of it; `seen` are the requests' fields and bodies."""

    answer: Callable[[dict[str, str], bytes], Answer]
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        machine.initiate_connection()
        fields: dict[str, str] = {}
        body = b""
        try:
            while data := await reader.read(65536):
                for event in machine.receive_data(data):
                    match event:
                        case h2.events.RequestReceived(headers=headers):
                            fields, body = {str(name): str(value) for name, value in headers or ()}, b""
                        case h2.events.DataReceived(data=piece):
                            body += piece or b""
                        case h2.events.StreamEnded(stream_id=stream):
                            self.seen.append((fields, body))
                            head, content, trailers = self.answer(fields, body)
                            machine.send_headers(stream, head, end_stream=not content and not trailers)
                            if content:
                                machine.send_data(stream, content, end_stream=not trailers)
                            if trailers:
                                machine.send_headers(stream, trailers, end_stream=True)
                writer.write(machine.data_to_send())
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def http2_server(answer: Callable[[dict[str, str], bytes], Answer]) -> AsyncIterator[tuple[Http2Server, int]]:
    fake = Http2Server(answer)
    server = await asyncio.start_server(fake.serve, LOCAL, 0)
    try:
        yield fake, server.sockets[0].getsockname()[1]
    finally:
        server.close()


def grpc(message: bytes, status: str = "0", http: str = "200") -> Answer:
    """A complete gRPC answer of one message."""
    head = [(":status", http), ("content-type", "application/grpc")]
    return head, b"\0" + len(message).to_bytes(4, "big") + message, [("grpc-status", status)]


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        pytest.param(grpc(b"\x08\x01"), True, id="SERVING"),
        pytest.param(grpc(b"\x08\x02"), False, id="NOT_SERVING"),
        pytest.param(grpc(b"\x08\x03"), False, id="SERVICE_UNKNOWN"),
        pytest.param(grpc(b""), False, id="UNKNOWN, which proto3 leaves out"),
        pytest.param(grpc(b"\x08\x81\x00"), True, id="SERVING in a longer form"),
        pytest.param(grpc(b"\x08\x01\x08\x02"), False, id="the last status counts"),
        pytest.param(grpc(b"\x08"), False, id="cut off"),
        pytest.param(grpc(b"\x08" + b"\xff" * 10), False, id="a number without end"),
        pytest.param(grpc(b"\x12\x01a"), False, id="another message"),
        pytest.param(grpc(b"\x08\x01", status="14"), False, id="a status that is not OK"),
        pytest.param(grpc(b"\x08\x01", http="503"), False, id="an HTTP failure"),
        pytest.param(
            ([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")], b"", []),
            False,
            id="no health service",
        ),
        pytest.param(([(":status", "200")], b"\0\0\0\0\x05\x08\x01", [("grpc-status", "0")]), False, id="wrong length"),
        pytest.param(([(":status", "200")], b"\1\0\0\0\2\x08\x01", [("grpc-status", "0")]), False, id="compressed"),
    ],
)
@on_loop
async def test_a_grpc_probe_wants_the_health_service_to_say_serving(answer: Answer, ready: bool) -> None:
    async with http2_server(lambda _fields, _body: answer) as (_, port):
        probe = Probe(LOCAL, port, service="", period_s=10.0, timeout_s=5.0)
        assert await Readiness([probe]).check() is ready


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("", b"\0\0\0\0\0"),
        ("a.b", b"\0\0\0\0\6\x0a\x83\x00a.b"),
        ("é", b"\0\0\0\0\5\x0a\x82\x00\xc3\xa9"),
    ],
)
@on_loop
async def test_a_grpc_probe_asks_for_the_service_it_names(service: str, message: bytes) -> None:
    async with http2_server(lambda _fields, _body: grpc(b"\x08\x01")) as (fake, port):
        probe = Probe(LOCAL, port, service=service, period_s=10.0, timeout_s=5.0)
        assert await Readiness([probe]).check()
        assert fake.seen == [
            (
                {
                    ":method": "POST", ":scheme": "http", ":authority": f"127.0.0.1:{port}",
                    ":path": "/grpc.health.v1.Health/Check", "te": "trailers", "content-type": "application/grpc",
                    "user-agent": "kube-probe//",
                },
                message,
            )
        ]  # fmt: skip


@on_loop
async def test_a_grpc_probe_of_what_is_no_grpc_server_fails() -> None:
    assert not await Readiness([Probe(LOCAL, closed_port(), service="", period_s=10.0, timeout_s=5.0)]).check()
    async with model_server(answering(ok())) as fake:
        assert not await Readiness([Probe(LOCAL, fake.port, service="", period_s=10.0, timeout_s=5.0)]).check()


def page(status: str, *fields: tuple[str, str]) -> Answer:
    return [(":status", status), *fields], b"", []


@on_loop
async def test_a_server_that_speaks_http2_is_asked_twice_by_it_the_second_time_with_the_probes_fields() -> None:
    async with http2_server(lambda _fields, _body: page("204")) as (fake, port):
        probe = Probe(LOCAL, port, "/a?b=c", headers=(("X-Key", "v"), ("Host", "no")), period_s=10.0, timeout_s=5.0)
        assert await Readiness([probe], detect_http2=True).check()
        common = {
            ":method": "GET", ":scheme": "http", ":authority": f"127.0.0.1:{port}", ":path": "/a?b=c",
            "user-agent": "kube-probe//", "accept-encoding": "gzip",
        }  # fmt: skip
        assert [fields for fields, _ in fake.seen] == [common, common | {"x-key": "v"}]


@on_loop
async def test_the_question_with_the_probes_fields_decides() -> None:
    async with http2_server(lambda fields, _body: page("403" if "x-key" in fields else "200")) as (_, port):
        probe = Probe(LOCAL, port, "/", headers=(("X-Key", "v"),), period_s=10.0, timeout_s=5.0)
        assert not await Readiness([probe], detect_http2=True).check()


@on_loop
async def test_redirects_are_followed_by_http2_too() -> None:
    def answer(fields: dict[str, str], _body: bytes) -> Answer:
        return page("302", ("location", "/there")) if fields[":path"] == "/" else page("200")

    async with http2_server(answer) as (fake, port):
        assert await Readiness([Probe(LOCAL, port, "/", period_s=10.0, timeout_s=5.0)], detect_http2=True).check()
        assert [fields[":path"] for fields, _ in fake.seen] == ["/", "/there"] * 2


@pytest.mark.parametrize(("code", "ready"), [(200, True), (500, False)])
@on_loop
async def test_where_http2_is_not_spoken_http1_decides(code: int, ready: bool) -> None:
    async def script(wire: Wire) -> None:
        head = await wire.head()
        if not head.startswith(b"PRI "):
            assert b"x-key" not in head
            await wire.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % code)

    async with model_server(script) as fake:
        probe = Probe(LOCAL, fake.port, "/", headers=(("X-Key", "v"),), period_s=10.0, timeout_s=5.0)
        assert await Readiness([probe], detect_http2=True).check() is ready
        assert [head.split()[0] for head in fake.seen] == [b"PRI", b"GET"]


@on_loop
async def test_a_server_that_does_not_answer_http2_at_all_is_still_asked_by_http1() -> None:
    async def script(wire: Wire) -> None:
        if (await wire.head()).startswith(b"PRI "):
            await wire.gone()
        else:
            await wire.send(ok())

    async with model_server(script) as fake:
        probe = Probe(LOCAL, fake.port, "/", period_s=10.0, timeout_s=0.5)
        assert await Readiness([probe], detect_http2=True).check()


def test_a_plain_start_loads_neither_http2_nor_prometheus() -> None:
    code = (
        "import sys, knative_sponge.proxy.__main__; "
        "print([name for name in ('h2', 'hpack', 'prometheus_client', 'msgspec') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
