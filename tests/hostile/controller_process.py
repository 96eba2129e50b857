"""The real controller as a process of its own, in front of an API server in a thread; its CPU seconds and bytes.

with controller_process() as controller:
    with controller.connect(controller.health_port) as attack:
        attack.sendall(...)
        assert controller.review() == 200
"""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml

from tests.controller.admission_kit import pod_with, question
from tests.controller.apiserver import FakeApi
from tests.hostile.proxy_process import MeasuredProcess
from tests.proxy.test_server import PATIENCE_S
from tests.proxy.wire import LOCAL

HONEST = "127.0.0.2"
"""Whence those ask that mean no harm."""
_REVIEW = question(pod_with())


class ApiThread:
    """An API server on a loop of its own."""

    def __init__(self) -> None:
        self.url = ""
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(PATIENCE_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(PATIENCE_S)

    async def _run(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        async with FakeApi() as api:
            self.url = api.url
            self._listening.set()
            await self._stopped.wait()


class ControllerProcess(MeasuredProcess):
    """A controller that is ready, and the ports it was told."""

    def __init__(self, pid: int, webhook_port: int, health_port: int, metrics_port: int) -> None:
        super().__init__(pid)
        self.webhook_port = webhook_port
        self.health_port = health_port
        self.metrics_port = metrics_port

    def connect(self, port: int, local: str = LOCAL) -> socket.socket:
        """A connection on which no byte is said yet."""
        return socket.create_connection((LOCAL, port), timeout=PATIENCE_S, source_address=(local, 0))

    def connect_tls(self, local: str = LOCAL) -> ssl.SSLSocket:
        """A connection to the webhook, behind its handshake."""
        return over_tls(self.connect(self.webhook_port, local))

    def status(self, port: int, target: str) -> int:
        """The answer to a GET from an honest address; 0 when there is none."""
        return answered(self.connect(port, HONEST), "GET", target)

    def review(self) -> int:
        """The answer to an honest review of a pod; 0 when there is none."""
        try:
            return answered(self.connect_tls(HONEST), "POST", "/mutate/pods", _REVIEW)
        except OSError:
            return 0


def over_tls(plain: socket.socket) -> ssl.SSLSocket:
    """The connection, behind its handshake; any certificate will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(plain)
    except BaseException:
        plain.close()
        raise


def answered(connection: socket.socket, method: str, target: str, body: bytes | None = None) -> int:
    """Status of one request on a connection, which is closed then; 0 when it was closed before."""
    client = http.client.HTTPConnection("a.example")
    client.sock = connection
    try:
        client.request(method, target, body)
        answer = client.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        client.close()


@contextmanager
def controller_process(folder: Path) -> Iterator[ControllerProcess]:
    """A controller that leads and serves reviews. folder: for its kubeconfig."""
    api = ApiThread()
    api.start()
    names = ("SPONGE_WEBHOOK_PORT", "SPONGE_HEALTH_PORT", "SPONGE_METRICS_PORT")
    with ExitStack() as stack:  # all taken at once, so that they differ
        ports = [stack.enter_context(_free()).getsockname()[1] for _ in names]
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (folder / "config").write_text(yaml.safe_dump(config))
    env = os.environ | {
        "KUBECONFIG": str(folder / "config"),
        "POD_NAME": "one",
        "POD_NAMESPACE": "knative-sponge",
        "SPONGE_QUEUE_PROXY_IMAGE": "queue-proxy:test",
    }
    env |= dict(zip(names, map(str, ports), strict=True))
    process = subprocess.Popen([sys.executable, "-m", "knative_sponge.controller"], env=env, stderr=subprocess.DEVNULL)
    try:
        controller = ControllerProcess(process.pid, *ports)
        deadline_s = time.monotonic() + PATIENCE_S
        while not _ready(controller):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        yield controller
    finally:
        process.kill()
        process.wait()
        api.stop()


def _free() -> socket.socket:
    """A port that nobody has and that the system gives to no connection of its own until the program takes it."""
    while True:
        with suppress(OSError):
            return socket.create_server((LOCAL, random.randrange(10_000, 32_000)))


def _ready(controller: ControllerProcess) -> bool:
    try:
        return controller.status(controller.health_port, "/readyz") == 200
    except OSError:
        return False
