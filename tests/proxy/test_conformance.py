"""Knative's conformance list (docs/knative-contract.md §9) against the real process.

One test per line of it that is HTTP/1.1; gRPC (18) needs HTTP/2. In other files, where time or memory is the subject:

     2  ten seconds of trying, one loop for all callers: test_server_readiness (`gives_up`, `share_one_check`)
     8  what a leaving pod tells each kind of probe: test_probe_handler, test_server (`draining`)
    19  means and rates of the Stat: test_stat
    22  every variable that must be there: test_proxy_settings
    23  100 MiB each way: test_server

What was observed of Go beyond that list (docs/knative-contract.md §10): test_go_behaviour.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import time
from contextlib import ExitStack

import pytest

from tests.proxy.conformance_kit import KUBELET, TEXT, ZIPPED, Application, ask, body, raw, request, told, until_end
from tests.proxy.harness import closed_port
from tests.proxy.test_server import PATIENCE_S, Running, environment, running, start, wait_until_closed


def test_1_the_kubelets_probe_of_a_ready_pod_does_not_call_the_application(plain: tuple[Running, Application]) -> None:
    proxy, server = plain
    before = server.requests
    for target in ("/anything", "/"):
        answer = ask(proxy.port, target, KUBELET)
        assert (answer.status, body(answer), answer.getheader("content-type")) == (200, b"queue", TEXT)
    assert server.requests == before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"User-Agent": "kube-probe/1.34"}, b"unexpected probe header value: \n", id="3"),
        pytest.param(
            {"User-Agent": "Knative-Autoscaling-Probe", "K-Network-Probe": "activator"},
            b"unexpected probe header value: activator\n",
            id="4",
        ),
        pytest.param(
            {"K-Network-Probe": "probe"},
            b'a probe request must contain a non-empty "K-Network-Hash" header\n',
            id="6",
        ),
    ],
)
def test_3_4_6_a_probe_that_is_not_for_a_queue_proxy_is_a_400(
    plain: tuple[Running, Application], fields: dict[str, str], said: bytes
) -> None:
    answer = ask(plain[0].port, "/", fields)
    assert (answer.status, body(answer)) == (400, said)
    assert (answer.getheader("content-type"), answer.getheader("x-content-type-options")) == (TEXT, "nosniff")


def test_5_a_route_probe_gets_its_hash_back(plain: tuple[Running, Application]) -> None:
    answer = ask(plain[0].port, "/", {"K-Network-Probe": "probe", "K-Network-Hash": "h"})
    assert (answer.status, body(answer), answer.getheader("k-network-hash")) == (200, b"", "h")


def test_7_a_probe_header_from_anybody_else_reaches_the_application(plain: tuple[Running, Application]) -> None:
    answer = ask(plain[0].port, "/", {"K-Network-Probe": "queue", "User-Agent": "curl/8"})
    assert told(answer)[1]["k-network-probe"] == "queue"


def test_8_a_leaving_pod_refuses_probes_and_serves_requests(app: Application) -> None:
    route = {"K-Network-Probe": "probe", "K-Network-Hash": "h"}
    with running(USER_PORT=str(app.port), SPONGE_DRAIN_QUIET="1h") as proxy:
        proxy.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S
        while ask(proxy.port, "/", route).status == 200:
            assert time.monotonic() < deadline
        for fields in (KUBELET, route):
            answer = ask(proxy.port, "/", fields)
            assert (answer.status, body(answer)) == (503, b"shutting down\n")
        assert ask(proxy.port).status == 200


def test_9_with_a_concurrency_of_1_one_runs_ten_wait_and_the_twelfth_is_refused(app: Application) -> None:
    with running(USER_PORT=str(app.port), CONTAINER_CONCURRENCY="1") as proxy, ExitStack() as stack:
        clients = [stack.enter_context(raw(proxy.port, request("/silent", "Connection: close"))) for _ in range(12)]
        refused, _, _ = select.select(clients, [], [], PATIENCE_S)
        assert len(refused) == 1
        answer = until_end(refused[0])
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"\r\n\r\npending request queue full\n")
        assert app.asked.acquire(timeout=PATIENCE_S)  # the one that runs may get there after the refusal
        assert app.requests == 1
        app.go.set()
        for client in clients:
            if client is not refused[0]:
                assert until_end(client).endswith(b"late")


def test_10_a_silent_application_is_a_504_and_its_request_is_cancelled(impatient: tuple[Running, Application]) -> None:
    proxy, server = impatient
    server.cut.clear()
    with proxy.connect() as client:
        for _ in range(2):
            client.request("GET", "/silent")
            answer = client.getresponse()
            assert (answer.status, answer.read(), answer.getheader("content-type")) == (504, b"request timeout", TEXT)
            assert answer.getheader("x-content-type-options") is None
            assert server.cut.wait(PATIENCE_S)


def test_11_a_stream_is_cut_when_its_time_is_up_and_nobody_takes_it_for_complete(
    impatient: tuple[Running, Application],
) -> None:
    proxy, server = impatient
    server.cut.clear()
    with raw(proxy.port, request("/stream")) as client:
        received = until_end(client)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"tick" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert server.cut.wait(PATIENCE_S)


def test_12_an_answer_may_take_its_time_between_two_pieces_but_not_too_much(app: Application) -> None:
    with running(USER_PORT=str(app.port), REVISION_IDLE_TIMEOUT_SECONDS="1") as proxy:
        with raw(proxy.port, request("/turns")) as client:
            for turn in range(1, 5):
                app.turn.release()
                received = b""
                while b"turn" not in received:
                    received += client.recv(65536)
                if turn < 4:
                    time.sleep(0.5)
            assert until_end(client) == b""
        with raw(proxy.port, request("/silent", "Connection: close")) as client:
            assert until_end(client).startswith(b"HTTP/1.1 504 "), "the first piece may not take longer either"


def test_13_the_original_host_is_the_host(plain: tuple[Running, Application]) -> None:
    _, fields = told(ask(plain[0].port, "/", {"Host": "b.example", "K-Original-Host": "a.example"}))
    assert fields["host"] == "a.example"
    assert "k-original-host" not in fields


def test_14_what_only_finds_the_pod_does_not_reach_the_application(plain: tuple[Running, Application]) -> None:
    sent = {"Knative-Serving-Revision": "r", "Knative-Serving-Namespace": "n", "K-Proxy-Request": "activator"}
    _, fields = told(ask(plain[0].port, "/", sent))
    assert not [name for name in fields if name.startswith("knative-")]
    assert fields["k-proxy-request"] == "activator"


def test_15_forwarded_is_made_of_the_older_fields_and_the_peer_is_appended(plain: tuple[Running, Application]) -> None:
    sent = {"X-Forwarded-For": "1.2.3.4, ::1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "h"}
    _, fields = told(ask(plain[0].port, "/", sent))
    assert fields["forwarded"] == 'for=1.2.3.4;host=h;proto=https, for="[::1]"'
    assert fields["x-forwarded-for"] == "1.2.3.4, ::1, 127.0.0.1"
    assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == ("https", "h")


def test_16_an_application_that_is_down_is_a_502() -> None:
    with running(USER_PORT=str(closed_port())) as proxy:
        answer = ask(proxy.port)
        assert (answer.status, answer.getheader("content-type")) == (502, TEXT)
        assert body(answer).endswith(b"\n")


def test_17_each_event_of_a_stream_arrives_at_once(plain: tuple[Running, Application]) -> None:
    proxy, server = plain
    with raw(proxy.port, request("/turns")) as client:
        received = b""
        for count in range(1, 6):
            server.turn.release()  # the next one is only made when this one is here
            while received.count(b"turn") < count:
                received += client.recv(65536)


def test_18_a_websocket_echoes_and_ends_from_either_side(plain: tuple[Running, Application]) -> None:
    offer = request("/echo", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    with raw(plain[0].port, offer + b"early") as client:
        received = b""
        while not received.endswith(b"early"):
            received += client.recv(65536)
        assert received.startswith(b"HTTP/1.1 101 ")
        client.sendall(b"\x81\x85mask" + bytes(100))
        assert client.recv(106, socket.MSG_WAITALL) == b"\x81\x85mask" + bytes(100)
        client.shutdown(socket.SHUT_WR)
        assert until_end(client) == b""


def test_19_the_autoscaler_is_told_how_many_requests_are_in_flight(app: Application) -> None:
    stat_port = closed_port()
    with running(USER_PORT=str(app.port), SPONGE_STAT_PORT=str(stat_port)) as proxy, ExitStack() as stack:
        for fields in ((), (), ("K-Proxy-Request: activator",), ("K-Proxy-Request: activator",)):
            stack.enter_context(raw(proxy.port, request("/silent", *fields)))
        for _ in range(4):
            assert app.asked.acquire(timeout=PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = ask(stat_port, "/metrics", {"Accept": "application/protobuf"})
            assert (answer.status, answer.getheader("content-type")) == (200, "application/protobuf")
            means = doubles(body(answer))
            if (means.get(2), means.get(3)) == (4.0, 2.0):
                break
            assert time.monotonic() < deadline, means
            time.sleep(0.05)
        assert ask(stat_port, "/other").status == 404


def doubles(message: bytes) -> dict[int, float]:
    """The fields of a Stat that are doubles (protobuf wire type 1), by number; the only string is skipped."""
    found, at = {}, 0
    while at < len(message):
        number, kind = message[at] >> 3, message[at] & 7
        if kind == 2:
            at += 2 + message[at + 1]
            continue
        assert kind == 1
        found[number] = struct.unpack_from("<d", message, at + 1)[0]
        at += 9
    return found


def test_20_the_hook_without_a_signal_returns_after_a_second_and_probes_pass_again(app: Application) -> None:
    with running(USER_PORT=str(app.port)) as proxy:
        began_s = time.monotonic()
        answer = ask(proxy.admin_port, "/wait-for-drain")
        assert (answer.status, body(answer)) == (200, b"")
        assert time.monotonic() - began_s >= 0.9
        assert body(ask(proxy.port, "/", KUBELET)) == b"queue"


def test_21_the_hook_returns_when_it_is_quiet_requests_in_flight_finish_and_the_end_is_orderly(
    app: Application,
) -> None:
    with running(USER_PORT=str(app.port), SPONGE_DRAIN_QUIET="1s") as proxy:
        with raw(proxy.port, request("/silent")) as client:
            assert app.asked.acquire(timeout=PATIENCE_S)
            began_s = time.monotonic()
            proxy.process.send_signal(signal.SIGTERM)
            assert ask(proxy.admin_port, "/wait-for-drain").status == 200
            assert time.monotonic() - began_s >= 1.0
            wait_until_closed(proxy.port)
            app.go.set()
            assert until_end(client).endswith(b"late")
        _, errors = proxy.process.communicate(timeout=PATIENCE_S)
        assert (proxy.process.returncode, errors) == (0, "")


def test_22_without_the_name_of_its_pod_it_does_not_start() -> None:
    env = environment()
    del env["SERVING_POD"]
    process = start(env)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "SERVING_POD" in errors


@pytest.mark.parametrize("target", ["/silent", "/stream"])
def test_23_a_client_that_aborts_cancels_its_request_at_the_application(
    plain: tuple[Running, Application], target: str
) -> None:
    proxy, server = plain
    while server.asked.acquire(blocking=False):
        pass
    server.cut.clear()
    with raw(proxy.port, request(target)):
        assert server.asked.acquire(timeout=PATIENCE_S)
    assert server.cut.wait(PATIENCE_S)


def test_24_a_compressed_answer_stays_as_it_is(plain: tuple[Running, Application]) -> None:
    answer = ask(plain[0].port, "/zipped", {"Accept-Encoding": "gzip"})
    assert (body(answer), answer.getheader("content-encoding")) == (ZIPPED, "gzip")
    assert "accept-encoding" not in told(ask(plain[0].port))[1]


def test_25_the_target_stays_as_it_is(plain: tuple[Running, Application]) -> None:
    line, _ = told(ask(plain[0].port, "/a%2Fb//c?x=%20"))
    assert line == "GET /a%2Fb//c?x=%20 HTTP/1.1"
