"""Connections that do nothing take nobody's place: neither with few files, nor when the port is full."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.hostile.proxy_process import ProxyProcess, proxy_process

FILES = 256
MANY = 1100


@contextmanager
def opened(proxy: ProxyProcess, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections on which so much is said."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            with suppress(OSError):
                connections.append(stack.enter_context(proxy.connect()))
                connections[-1].sendall(sent)
        yield connections


def test_idle_connections_beyond_the_limit_of_files_silence_nobody() -> None:
    with proxy_process(files=FILES, SPONGE_SLO="5s") as proxy, opened(proxy, MANY):
        assert proxy.probe() < 1.0
        assert proxy.ask("GET", "/10")[0].status == 200
        assert proxy.predict() == 200
        proxy.settle()
        before_s = proxy.cpu_s()
        proxy.settle()
        assert proxy.cpu_s() - before_s < 0.1, "it waits, and does not ask again and again"


def test_unfinished_heads_silence_nobody() -> None:
    with proxy_process(files=FILES, SPONGE_SLO="5s") as proxy, opened(proxy, MANY, b"GET / HTTP/1.1\r\nHo"):
        assert proxy.probe() < 1.0
        assert proxy.ask("GET", "/10")[0].status == 200


def test_when_every_connection_is_busy_a_probe_is_answered_and_others_are_told_to_come_again() -> None:
    with proxy_process(files=FILES) as proxy:
        proxy.model.go.clear()
        with opened(proxy, 100, b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"):
            proxy.settle()
            assert proxy.probe() < 1.0
            answer, body = proxy.ask("GET", "/10")
            assert (answer.status, answer.headers["sponge-reason"]) == (503, "queue-full")
            assert answer.headers["retry-after"] == "1"
            assert b"connections" in body
            proxy.model.go.set()
        proxy.settle()
        assert proxy.ask("GET", "/10")[0].status == 200


def test_the_soft_limit_of_files_is_raised_to_the_hard_one() -> None:
    with proxy_process(files=FILES, hard=1024) as proxy:
        assert proxy.files() == (1024, 1024)


def test_side_ports_are_served_when_the_data_port_is_full() -> None:
    with proxy_process(files=FILES, SPONGE_SLO="5s") as proxy, opened(proxy, MANY):
        for port, target in ((proxy.admin_port, "/sponge/v1/state"), (proxy.metrics_port, "/metrics")):
            assert proxy.ask("GET", target, port=port)[0].status == 200
