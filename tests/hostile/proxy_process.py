"""The real proxy as a process of its own, in front of a model server that can be held; its CPU seconds and bytes.

    with proxy_process(SPONGE_SLO="5s") as proxy:
        with proxy.connect() as attack:
            attack.sendall(...)
            assert proxy.probe() < 1.0

Costs are read from /proc: they say what an attack costs, whatever else the machine does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from tests.proxy.test_server import PATIENCE_S, environment, wait_for_port
from tests.proxy.wire import LOCAL

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PREDICT = "/v1/models/m:predict"


class HeldModel:
    """V1 model server in a thread: each instance is answered with 0, or with n characters where the target ends in `?<n>`;
    `GET /<n>` with n bytes, all else with nothing.

    calls: inference calls that have come. While `go` is not set, they and `GET /held` are read and not answered.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.port = 0
        self.go = threading.Event()
        self.go.set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(PATIENCE_S)

    def stop(self) -> None:
        self.go.set()
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(PATIENCE_S)

    async def _run(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, LOCAL, 0, backlog=1024, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports' own last step

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                target = head.split()[1].decode()
                answer = b""
                path, _, size = target.partition("?")
                if path.endswith(":predict"):
                    self.calls += 1
                    while not self.go.is_set():
                        await asyncio.sleep(0.01)
                    one = "x" * int(size) if size else 0
                    answer = json.dumps({"predictions": [one] * len(json.loads(body)["instances"])}).encode()
                elif target == "/held":
                    while not self.go.is_set():
                        await asyncio.sleep(0.01)
                elif target[1:].isdigit():
                    answer = bytes(int(target[1:]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()


class MeasuredProcess:
    """What a process has cost so far."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu_s(self) -> float:
        """CPU seconds the process has used, to a hundredth."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def files(self) -> tuple[int, int]:
        """Its limits of open files, soft and hard."""
        return resource.prlimit(self.pid, resource.RLIMIT_NOFILE)

    def settle(self) -> None:
        """Return once it has nothing more to do."""
        used_s = -1.0
        while used_s != (used_s := self.cpu_s()):
            time.sleep(0.2)

    def rss(self) -> int:
        """Bytes it has in memory."""
        return self._status("VmRSS")

    def peak_rss(self) -> int:
        """The most bytes it has ever had in memory."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


class ProxyProcess(MeasuredProcess):
    """A queue-proxy and the ports it was told; `model` is behind it."""

    def __init__(self, process: subprocess.Popen[str], env: dict[str, str], model: HeldModel) -> None:
        super().__init__(process.pid)
        self.process = process
        self.model = model
        self.port = int(env["QUEUE_SERVING_PORT"])
        self.admin_port = int(env["SPONGE_ADMIN_PORT"])
        self.stat_port = int(env["SPONGE_STAT_PORT"])
        self.metrics_port = int(env["SPONGE_METRICS_PORT"])
        self.tls_port = int(env.get("QUEUE_SERVING_TLS_PORT", "0"))

    def connect(self, port: int | None = None) -> socket.socket:
        """A connection, to the data port unless another one is named."""
        return socket.create_connection((LOCAL, self.port if port is None else port), timeout=PATIENCE_S)

    def ask(
        self, method: str, target: str, body: bytes | None = None, fields: dict[str, str] | None = None, port: int = 0
    ) -> tuple[HTTPResponse, bytes]:
        """One request on a connection of its own: its answer (`status`, `headers`) and the body."""
        connection = HTTPConnection(LOCAL, port or self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, target, body, fields or {})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def predict(self, instances: Sequence[object] = (0,)) -> int:
        """Status of one inference request."""
        return self.ask("POST", PREDICT, json.dumps({"instances": instances}).encode())[0].status

    def probe(self) -> float:
        """Ask what the kubelet asks, on a new connection. Returns the CPU seconds that the proxy spent until its answer."""
        before_s = self.cpu_s()
        answer, body = self.ask("GET", "/", fields={"User-Agent": "kube-probe/1.34", "K-Network-Probe": "queue"})
        assert (answer.status, body) == (200, b"queue")
        return self.cpu_s() - before_s


@contextmanager
def proxy_process(*, files: int | None = None, hard: int | None = None, **env: str) -> Iterator[ProxyProcess]:
    """A proxy that listens. env: variables besides Knative's own, such as `SPONGE_SLO`; without that one nothing is queued.

    files: limit of open files that it starts with, soft and, unless `hard` says otherwise, hard; None leaves the test's own.
    """
    model = HeldModel()
    model.start()
    told = environment(USER_PORT=str(model.port), **env)
    limit = ["sh", "-c", f'ulimit -Sn {files} && ulimit -Hn {hard or files} && exec "$@"', "sh"] if files else []
    command = [*limit, sys.executable, "-m", "knative_sponge.proxy"]
    process = subprocess.Popen(command, env=told, stdout=subprocess.DEVNULL, text=True)
    try:
        wait_for_port(int(told["QUEUE_SERVING_PORT"]), process)
        yield ProxyProcess(process, told, model)
    finally:
        process.kill()
        process.wait()
        model.stop()
