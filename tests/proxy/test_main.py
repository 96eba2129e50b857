"""The process as its environment tells it: which ports it opens, what it writes, what it starts in spite of."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.proxy.harness import closed_port
from tests.proxy.knative.test_stat import decoded
from tests.proxy.test_server import PATIENCE_S, PlainServer, environment, start, wait_for_port
from tests.proxy.wire import LOCAL

OBSERVED = {
    "requestMetrics": {"protocol": "prometheus", "endpoint": ""},
    "enableRequestLog": True,
    "requestLogTemplate": '{{.Request.Method}} {{js .Request.RequestURI}} {{.Response.Code}} {{.Revision.Name}}',
}  # fmt: skip


@pytest.fixture
def model() -> Iterator[PlainServer]:
    server = PlainServer()
    server.start()
    yield server
    server.listener.close()


class Process:
    """A queue-proxy and its ports."""

    def __init__(self, **more: str) -> None:
        self.env = environment(**more)
        self.process = start(self.env)
        wait_for_port(int(self.env["QUEUE_SERVING_PORT"]), self.process)

    def ask(self, port: str, method: str, target: str, body: bytes = b"") -> tuple[int, str | None, bytes]:
        """Status, content type and body."""
        connection = HTTPConnection(LOCAL, int(self.env[port]), timeout=PATIENCE_S)
        try:
            connection.request(method, target, body)
            answer = connection.getresponse()
            return answer.status, answer.getheader("content-type"), answer.read()
        finally:
            connection.close()

    def opened(self, port: str) -> bool:
        try:
            self.ask(port, "GET", "/")
        except ConnectionRefusedError:
            return False
        return True


@contextmanager
def running(**more: str) -> Iterator[Process]:
    proxy = Process(**more)
    try:
        yield proxy
    finally:
        proxy.process.kill()
        proxy.process.communicate()


@pytest.mark.parametrize("slo", ["", "500ms"])
def test_the_autoscalers_port_is_served_with_and_without_deadlines(model: PlainServer, slo: str) -> None:
    with running(USER_PORT=str(model.port), SPONGE_SLO=slo) as proxy:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            proxy.ask("QUEUE_SERVING_PORT", "GET", "/")
            status, kind, body = proxy.ask("SPONGE_STAT_PORT", "GET", "/metrics")
            assert (status, kind) == (200, "application/protobuf")
            stat = decoded(body)
            assert stat[1] == b"pod"
            if 4 in stat:
                break
            assert time.monotonic() < deadline_s
        uptime_s, rate = stat[6], stat[4]
        assert isinstance(uptime_s, float)
        assert isinstance(rate, float)
        assert min(uptime_s, rate) > 0
        assert proxy.opened("SPONGE_METRICS_PORT") is bool(slo), "the deadline queue's metrics need nobody's leave"


def test_what_knative_asks_to_see_is_shown(model: PlainServer) -> None:
    with running(
        USER_PORT=str(model.port), SPONGE_SLO="500ms", CONTAINER_CONCURRENCY="3", OBSERVABILITY_CONFIG=json.dumps(OBSERVED)
    ) as proxy:  # fmt: skip
        assert proxy.ask("QUEUE_SERVING_PORT", "GET", "/?a=b")[0] == 200
        _, kind, body = proxy.ask("SPONGE_METRICS_PORT", "GET", "/metrics")
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        text = body.decode()
        for line in (
            'kn_serving_invocation_duration_seconds_count{http_response_status_code="200"} 1.0',
            "kn_serving_queue_depth 0.0",
            "sponge_cores 1.0",
        ):
            assert line in text
        proxy.process.send_signal(signal.SIGTERM)
        output, errors = proxy.process.communicate(timeout=PATIENCE_S)
        assert proxy.process.returncode == 0
        assert output == "GET /?a\\u003Db 200 rev\n"
        assert "CONTAINER_CONCURRENCY" not in errors


@pytest.mark.parametrize("path", ["/", "/v1/models/m:predict"])
def test_calls_that_fail_are_written_once_and_not_each(path: str) -> None:
    with running(USER_PORT=str(closed_port()), SPONGE_SLO="20s") as proxy:
        for _ in range(5):
            status, _, _ = proxy.ask("QUEUE_SERVING_PORT", "POST", path, b'{"instances": [1]}')
            assert status == 502
        proxy.process.send_signal(signal.SIGTERM)
        _, errors = proxy.process.communicate(timeout=PATIENCE_S)
    lines = [line for line in errors.splitlines() if "upstream" in line]
    assert len(lines) == 1, errors
    assert lines[0].startswith(
        "WARNING knative_sponge.proxy.failures: upstream-refused: no connection to the model server"
    )


def test_the_endpoint_names_the_port(model: PlainServer) -> None:
    port = closed_port()
    metrics = {"requestMetrics": {"protocol": "prometheus", "endpoint": f":{port}"}}
    with running(USER_PORT=str(model.port), SPONGE_METRICS_PORT="", OBSERVABILITY_CONFIG=json.dumps(metrics)) as proxy:
        proxy.env["METRICS"] = str(port)
        assert b"target_info" in proxy.ask("METRICS", "GET", "/metrics")[2]


def test_what_cannot_be_meant_is_said_and_does_not_hinder(model: PlainServer) -> None:
    with running(
        USER_PORT="http", SERVING_LOGGING_CONFIG="{", SERVING_LOGGING_LEVEL="loud", ENABLE_HTTP_FULL_DUPLEX="1"
    ) as proxy:
        assert proxy.ask("SPONGE_STAT_PORT", "GET", "/metrics")[0] == 200
        proxy.process.send_signal(signal.SIGTERM)
        _, errors = proxy.process.communicate(timeout=PATIENCE_S)
        assert proxy.process.returncode == 0
        assert all(name in errors for name in ("USER_PORT", "SERVING_LOGGING_CONFIG", "SERVING_LOGGING_LEVEL"))


def test_a_concurrency_that_keeps_batches_small_is_said(model: PlainServer) -> None:
    with running(USER_PORT=str(model.port), SPONGE_SLO="500ms", CONTAINER_CONCURRENCY="1") as proxy:
        proxy.process.send_signal(signal.SIGTERM)
        _, errors = proxy.process.communicate(timeout=PATIENCE_S)
        assert "CONTAINER_CONCURRENCY" in errors
        assert "11 requests" in errors


def test_memory_and_threads_of_a_plain_proxy_stay_what_they_are(model: PlainServer) -> None:
    with running(USER_PORT=str(model.port)) as proxy:
        assert proxy.ask("QUEUE_SERVING_PORT", "GET", "/")[0] == 200
        assert len(list(Path(f"/proc/{proxy.process.pid}/task").iterdir())) == 1, "nobody asked for a log"
