"""An application that tells what it was asked, and raw requests to the proxy's process in front of it."""

from __future__ import annotations

import gzip
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.proxy.test_server import PATIENCE_S
from tests.proxy.wire import LOCAL

TEXT = "text/plain; charset=utf-8"
KUBELET = {"User-Agent": "kube-probe/1.34", "K-Network-Probe": "queue"}
ZIPPED = gzip.compress(b"hello" * 100)


class Application(ThreadingHTTPServer):
    """The user's container: tells what it was asked, or does what the path says.

    /silent waits for `go`; /stream sends a chunk every 20 ms for ever; /turns sends one for each `turn`; /zipped is
    compressed; /echo switches protocols and echoes. `cut` is set when a client breaks one of these off.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__((LOCAL, 0), Handler)
        self.go = threading.Event()
        self.cut = threading.Event()
        self.asked = threading.Semaphore(0)
        self.turn = threading.Semaphore(0)
        self.requests = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.cut.set()


class Handler(BaseHTTPRequestHandler):
    server: Application
    protocol_version = "HTTP/1.1"
    server_version = "app/1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests += 1
        self.server.asked.release()
        page = getattr(self, self.path[1:], None) if self.path[1:].isalpha() else None
        (page or self.told)()

    def told(self) -> None:
        self.answer(json.dumps({"line": self.requestline, "fields": list(self.headers.items())}).encode())

    def answer(self, body: bytes, **fields: str) -> None:
        self.send_response(200)
        for name, value in ({"Content-Length": str(len(body))} | fields).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def silent(self) -> None:
        while not self.server.go.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.01)
            if readable:
                self.server.cut.set()
                self.close_connection = True
                return
        self.answer(b"late")

    def chunks(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def stream(self) -> None:
        self.chunks()
        while True:
            self.wfile.write(b"4\r\ntick\r\n")
            time.sleep(0.02)

    def turns(self) -> None:
        self.chunks()
        while self.server.turn.acquire(timeout=PATIENCE_S):
            self.wfile.write(b"4\r\nturn\r\n")

    def zipped(self) -> None:
        self.answer(ZIPPED, Content_Encoding="gzip")

    def echo(self) -> None:
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.end_headers()
        while data := self.rfile.read1(65536):
            self.wfile.write(data)
        self.close_connection = True


@contextmanager
def application() -> Iterator[Application]:
    with Application() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.go.set()
        server.shutdown()


def ask(port: int, target: str = "/", fields: dict[str, str] | None = None, method: str = "GET") -> HTTPResponse:
    """One request on a connection of its own; its answer, read."""
    with closing(HTTPConnection(LOCAL, port, timeout=PATIENCE_S)) as connection:
        connection.putrequest(method, target, skip_host="Host" in (fields or {}), skip_accept_encoding=True)
        for name, value in (fields or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.text = answer.read()  # type: ignore[attr-defined]
        return answer


def body(answer: HTTPResponse) -> bytes:
    return answer.text  # type: ignore[attr-defined, no-any-return]


def told(answer: HTTPResponse) -> tuple[str, dict[str, str]]:
    """Request line and fields as the application saw them."""
    seen = json.loads(body(answer))
    fields = [(name.lower(), value) for name, value in seen["fields"]]
    assert len(dict(fields)) == len(fields), fields
    return seen["line"], dict(fields)


def raw(port: int, data: bytes) -> socket.socket:
    connection = socket.create_connection((LOCAL, port), timeout=PATIENCE_S)
    connection.sendall(data)
    return connection


def until_end(connection: socket.socket) -> bytes:
    """All that comes; a reset is an end too."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def request(target: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a.example", *fields, "", ""]).encode()
