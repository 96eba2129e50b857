"""What was observed of Go's queue-proxy (docs/knative-contract.md §10), against the real process, where no other file has it.

In other files: 2 test_timeouts · 3 test_relay_failures · 4 test_identity · 5 test_identity (`nothing_is_added`) ·
6 test_streaming (`trailers_of_a_request`) · 7 test_informational, test_streaming (`overtakes`) · 8, 21 test_refusals ·
9 test_half_close · 10, 12 test_switching · 11, 12 test_probe_handler · 14, 15, 16 test_headers · 18 test_server, test_stat ·
19 test_tunnel · 20 test_timeouts · 22 test_proxy_settings · 23 test_relay_failures.
"""

from __future__ import annotations

import json
import signal
import socket

import pytest

from tests.proxy.conformance_kit import KUBELET, Application, ask, body, raw, request, until_end
from tests.proxy.test_server import PATIENCE_S, Running, running, wait_until_closed
from tests.proxy.wire import LOCAL


def test_after_a_504_the_connection_stays_usable(impatient: tuple[Running, Application]) -> None:
    with impatient[0].connect() as client:
        client.request("GET", "/silent")
        assert client.getresponse().read() == b"request timeout"
        port = client.sock.getsockname()[1]
        client.request("GET", "/")
        assert client.getresponse().status == 200
        assert client.sock.getsockname()[1] == port


def test_a_timeout_of_nothing_refuses_everything_at_once(app: Application) -> None:
    with running(USER_PORT=str(app.port), REVISION_TIMEOUT_SECONDS="0") as proxy:
        answer = ask(proxy.port)
        assert (answer.status, body(answer)) == (504, b"request timeout")
        assert app.requests == 0


@pytest.mark.parametrize("head", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"])
def test_a_request_that_names_no_host_gets_that_of_the_application(
    plain: tuple[Running, Application], head: bytes
) -> None:
    proxy, server = plain
    with raw(proxy.port, head) as client:
        _, _, seen = until_end(client).partition(b"\r\n\r\n")
    assert dict(json.loads(seen)["fields"])["host"] == f"{LOCAL}:{server.port}"


def test_an_expectation_nobody_knows_is_a_417(plain: tuple[Running, Application]) -> None:
    assert ask(plain[0].port, "/", {"Expect": "a-miracle"}).status == 417


def test_options_of_the_server_are_answered_before_anything_else(plain: tuple[Running, Application]) -> None:
    proxy, server = plain
    before = server.requests
    for fields in ({}, KUBELET, {"K-Network-Probe": "probe"}):
        answer = ask(proxy.port, "*", fields, method="OPTIONS")
        assert (answer.status, body(answer)) == (200, b"")
    assert server.requests == before


def test_a_client_that_ends_its_side_behind_its_request_gets_its_answer(app: Application) -> None:
    with running(USER_PORT=str(app.port)) as proxy, raw(proxy.port, request("/silent")) as client:
        client.shutdown(socket.SHUT_WR)
        assert app.asked.acquire(timeout=PATIENCE_S)
        app.go.set()
        assert until_end(client).endswith(b"late")


def test_a_tunnel_at_sigterm_is_served_on_and_its_end_ends_the_process(app: Application) -> None:
    with running(USER_PORT=str(app.port)) as proxy:
        offer = request("/echo", "Connection: Upgrade", "Upgrade: websocket")
        with raw(proxy.port, offer) as client:
            while not client.recv(65536).endswith(b"\r\n\r\n"):
                pass
            proxy.process.send_signal(signal.SIGTERM)
            wait_until_closed(proxy.port)
            client.sendall(b"still here")
            assert client.recv(10, socket.MSG_WAITALL) == b"still here"
        _, errors = proxy.process.communicate(timeout=PATIENCE_S)
        assert (proxy.process.returncode, errors) == (0, "")
