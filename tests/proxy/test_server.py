"""The proxy as a process: how it starts, what it loads, how it leaves, and that bodies of any size do not stay in it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.proxy.knative.stat import StatReporter
from knative_sponge.proxy.server import build
from knative_sponge.proxy.upstream.pool import Upstream
from tests.proxy.harness import SETTINGS, closed_port, on_loop
from tests.proxy.test_proxy_settings import KNATIVE
from tests.proxy.wire import LOCAL

PATIENCE_S = 30.0
PIECE = bytes(range(256)) * 256


class PlainServer(threading.Thread):
    """A model server on blocking sockets: `GET` sends many bytes, `POST` counts them, `/slow` waits for `go`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server((LOCAL, 0))
        self.port: int = self.listener.getsockname()[1]
        self.go = threading.Event()
        self.asked = threading.Event()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            if not head:
                return
            length = re.search(rb"(?i)content-length: (\d+)", head)
            size = int(head.split()[1].removeprefix(b"/") or 0) if head.split()[1][1:].isdigit() else 0
            received, same = 0, True
            while length and received < int(length[1]):
                piece = stream.read(min(len(PIECE), int(length[1]) - received))
                same &= piece == PIECE[: len(piece)]
                received += len(piece)
            if head.split()[1] == b"/slow":
                self.asked.set()
                self.go.wait(PATIENCE_S)
            answer = b"%d %d" % (received, same)
            if not size:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(PIECE)):
                connection.sendall(PIECE)


@pytest.fixture
def model() -> Iterator[PlainServer]:
    server = PlainServer()
    server.start()
    yield server
    server.listener.close()


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    admin_port: int

    def connect(self) -> closing[HTTPConnection]:
        return closing(HTTPConnection(LOCAL, self.port, timeout=PATIENCE_S))

    def ask(
        self, method: str, target: str, body: bytes | None = None, fields: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        with self.connect() as connection:
            connection.request(method, target, body, fields or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def peak_rss(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


def environment(**more: str) -> dict[str, str]:
    names = ("QUEUE_SERVING_PORT", "SPONGE_ADMIN_PORT", "SPONGE_STAT_PORT", "SPONGE_METRICS_PORT")
    with ExitStack() as stack:  # all taken at once, so that they differ
        taken = [stack.enter_context(socket.create_server((LOCAL, 0))) for _ in names]
        ports = {name: str(one.getsockname()[1]) for name, one in zip(names, taken, strict=True)}
    return os.environ | KNATIVE | ports | {"SPONGE_HOST": LOCAL, "SPONGE_DRAIN_QUIET": "0"} | more


def start(env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "knative_sponge.proxy"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(**more: str) -> Iterator[Running]:
    env = environment(**more)
    process = start(env)
    try:
        wait_for_port(int(env["QUEUE_SERVING_PORT"]), process)
        yield Running(process, int(env["QUEUE_SERVING_PORT"]), int(env["SPONGE_ADMIN_PORT"]))
    finally:
        process.kill()
        process.communicate()


def wait_for_port(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with socket.socket() as trial:
            if trial.connect_ex((LOCAL, port)) == 0:
                return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_missing_variable_ends_the_start_with_its_name() -> None:
    env = environment()
    del env["SERVING_POD"]
    process = start(env)
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert errors.startswith("knative-sponge queue-proxy: SERVING_POD")
    assert "Traceback" not in errors
    assert output == ""


def test_a_port_that_is_taken_ends_the_start() -> None:
    with socket.create_server((LOCAL, 0)) as taken:
        process = start(environment(QUEUE_SERVING_PORT=str(taken.getsockname()[1])))
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "Address already in use" in errors
    assert "Traceback" not in errors


def test_nothing_heavy_is_loaded() -> None:
    heavy = {"numpy", "ortools", "kubernetes", "pandas", "scipy", "PIL", "rich", "onnxruntime", "websockets"}
    code = (
        f"import sys, knative_sponge.proxy.__main__; print(sorted({heavy} & {{m.split('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish_and_ends_with_0(model: PlainServer, number: int) -> None:
    with running(USER_PORT=str(model.port)) as proxy, proxy.connect() as idle, proxy.connect() as slow:
        idle.request("POST", "/", b"x")
        assert idle.getresponse().read() == b"1 0"
        slow.request("GET", "/slow")
        assert model.asked.wait(PATIENCE_S)
        proxy.process.send_signal(number)
        wait_until_closed(proxy.port)
        model.go.set()
        answer = slow.getresponse()
        assert (answer.status, answer.read()) == (200, b"0 1")
        assert answer.getheader("connection") == "close"
        _, errors = proxy.process.communicate(timeout=PATIENCE_S)
        assert (proxy.process.returncode, errors) == (0, "")


def wait_until_closed(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with socket.socket() as trial:
            if trial.connect_ex((LOCAL, port)) != 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_second_signal_does_not_wait(model: PlainServer) -> None:
    with running(USER_PORT=str(model.port)) as proxy, proxy.connect() as slow:
        slow.request("GET", "/slow")
        assert model.asked.wait(PATIENCE_S)
        proxy.process.send_signal(signal.SIGTERM)
        wait_until_closed(proxy.port)
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM


def test_a_draining_proxy_serves_until_it_is_quiet(model: PlainServer) -> None:
    with running(USER_PORT=str(model.port), SPONGE_DRAIN_QUIET="1h") as proxy:
        proxy.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S
        kubelet = {"User-Agent": "kube-probe/1", "K-Network-Probe": "queue"}
        while (told := proxy.ask("GET", "/", fields=kubelet)) == (200, b"queue"):
            assert time.monotonic() < deadline
        assert told == (503, b"shutting down\n")
        assert proxy.ask("POST", "/", PIECE) == (200, b"%d 1" % len(PIECE))


def test_the_hook_is_answered_on_the_admin_port_and_nothing_of_ours_on_the_data_port(model: PlainServer) -> None:
    with running(USER_PORT=str(model.port)) as proxy:
        admin = Running(proxy.process, proxy.admin_port, proxy.admin_port)
        assert admin.ask("GET", "/wait-for-drain") == (200, b"")
        assert admin.ask("POST", "/wait-for-drain") == (200, b"")
        assert admin.ask("GET", "/elsewhere")[0] == 404
        assert proxy.ask("GET", "/wait-for-drain") == (200, b"0 1")


def test_hundred_mebibytes_pass_each_way_in_little_memory(model: PlainServer) -> None:
    size = 100 * 2**20
    with running(USER_PORT=str(model.port)) as proxy, proxy.connect() as down, proxy.connect() as up:
        assert proxy.ask("GET", f"/{len(PIECE)}") == (200, PIECE)
        before = proxy.peak_rss()
        down.request("GET", f"/{size}")
        answer = down.getresponse()
        received = 0
        while piece := answer.read(len(PIECE)):
            assert piece == PIECE
            received += len(piece)
        assert received == size
        up.request("POST", "/", (PIECE for _ in range(size // len(PIECE))), headers={"Content-Length": str(size)})
        assert up.getresponse().read() == b"%d 1" % size
        assert proxy.peak_rss() - before < 16 * 2**20


@on_loop
async def test_all_ports_listen_and_stop_in_order() -> None:
    async def hello(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    upstream = Upstream(LOCAL, closed_port())
    servers = build(SETTINGS, upstream=upstream, metrics_app=hello, stat=StatReporter("pod"))
    assert servers.stat is not None
    assert servers.metrics is not None
    servers.stat._port = servers.metrics._port = 0
    await servers.start()
    ports = [each.port for each in (servers.data, servers.admin, servers.stat, servers.metrics)]
    for port in ports:
        _, writer = await asyncio.open_connection(LOCAL, port)
        writer.close()
    await servers.stop()
    assert servers.drain.over
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOCAL, port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")
def test_without_a_host_both_families_are_served(model: PlainServer) -> None:
    with running(USER_PORT=str(model.port), SPONGE_HOST="") as proxy:
        for address in ("127.0.0.1", "::1"):
            with closing(HTTPConnection(address, proxy.port, timeout=PATIENCE_S)) as connection:
                connection.request("GET", "/")
                assert connection.getresponse().status == 200
