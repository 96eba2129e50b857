"""The HTTP both test apps speak: whole bodies in, whole bodies out, kept-alive connections. Knows no route."""

from __future__ import annotations

import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class BadRequest(Exception):
    """What the client sent cannot be used; the message says why."""


class Server(ThreadingHTTPServer):
    """A thread for each connection, on all interfaces of both families where the system has both."""

    daemon_threads = True
    request_queue_size = 1024
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        """Listen to IPv4 as well."""
        if self.address_family is socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = threading.Thread(target=self.shutdown)  # it waits for the loop below, so not from inside it
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None if stop.is_alive() else stop.start())
        self.serve_forever(poll_interval=0.1)
        self.server_close()


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer leave together

    def body(self) -> bytes:
        """The request's body, framed by length or in chunks. Raises BadRequest."""
        try:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return b"".join(parts)
        except ValueError as error:
            raise BadRequest("the body's framing cannot be read") from error

    def answer(self, status: int, value: Any = None) -> None:
        """Answer with `value` as JSON, or with nothing."""
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """A line for each request would only slow the tests down."""
