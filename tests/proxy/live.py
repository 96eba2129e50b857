"""A whole proxy on real ports in this process, and a model server that can be killed, hung and started again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from knative_sponge.proxy.knative.breaker import Breaker, breaker_for
from knative_sponge.proxy.knative.request_metrics import RequestMetrics
from knative_sponge.proxy.knative.stat import StatReporter
from knative_sponge.proxy.queue.wiring import Inference
from knative_sponge.proxy.server import Servers, build
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ProxySettings, ServingSettings

TOKEN = "t0ken"


class EchoModel:
    """V1 model server on a real socket: answers each instance with `{"of": instance}`.

    seen: how often each instance came. hung: calls are read and not answered. hooks: bodies of POST /cpu.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.hooks: list[dict[str, Any]] = []
        self.hung = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.calls = 0

    @property
    def up(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """As SIGKILL looks from outside: the port is closed and every connection reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                )
                body = json.loads(await reader.readexactly(length))
                if head.startswith(b"POST /cpu "):
                    self.hooks.append(body)
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    continue
                self.calls += 1
                self.seen.update(body["instances"])
                if self.hung:
                    await reader.read()
                    return
                answer = json.dumps({"predictions": [{"of": one} for one in body["instances"]]}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


@dataclass
class Live:
    """A running proxy in front of `model`."""

    model: EchoModel
    servers: Servers
    inference: Inference
    session: aiohttp.ClientSession
    breaker: Breaker | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers.data.port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.servers.admin.port}"

    @property
    def metrics(self) -> str:
        assert self.servers.metrics is not None
        return f"http://127.0.0.1:{self.servers.metrics.port}"

    async def predict(self, *instances: str, slo_ms: int | None = None) -> tuple[int, str | None, Any]:
        """Status, sponge-reason and JSON of one V1 call."""
        headers = {} if slo_ms is None else {"x-sponge-slo-ms": str(slo_ms)}
        url = f"{self.url}/v1/models/m:predict"
        async with self.session.post(url, json={"instances": list(instances)}, headers=headers) as answer:
            return answer.status, answer.headers.get("sponge-reason"), json.loads(await answer.read())

    async def put_cores(self, message: Any, token: str | None = TOKEN) -> int:
        """Status of `PUT /sponge/v1/cores`."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with self.session.put(f"{self.admin}/sponge/v1/cores", json=message, headers=headers) as answer:
            return answer.status

    async def demand(self, wanted: Callable[[dict[str, Any]], object] = lambda _: True) -> dict[str, Any]:
        """The first demand that is wanted."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with self.session.get(f"{self.admin}/sponge/v1/demand", headers=headers) as answer:
            async for line in answer.content:
                message: dict[str, Any] = json.loads(line)
                if wanted(message):
                    return message
        raise AssertionError("the stream ended")

    async def state(self) -> Any:
        """`GET /sponge/v1/state`."""
        async with self.session.get(f"{self.admin}/sponge/v1/state") as answer:
            assert answer.status == 200
            return json.loads(await answer.read())


def proxy_settings(model_port: int, **changed: Any) -> ProxySettings:
    """Settings as Knative would give them, all ports chosen by the system."""
    return ProxySettings(
        **{
            "namespace": "ns", "configuration": "c", "revision": "c-1", "pod": "p", "pod_ip": "127.0.0.1",
            "serving_port": 0, "tls_port": 0, "user_port": model_port, "container_concurrency": 0, "timeout_s": 30.0,
            "host": "127.0.0.1", "admin_port": 0, "stat_port": 0, "metrics_port": 0, "drain_quiet_s": 0.0,
            "cores": 1.0, "control_token": TOKEN, **changed,
        }
    )  # fmt: skip


@asynccontextmanager
async def live(
    serving: dict[str, str] | None = None, *, request_metrics: RequestMetrics | None = None, **proxy: Any
) -> AsyncIterator[Live]:
    """serving: annotations without prefix, over an SLO of 5 s and at most 4 cores. proxy: changed settings."""
    model = EchoModel()
    await model.start()
    settings = proxy_settings(model.port, **proxy)
    env = {"slo": "5s", "max-cores": "4", "min-cores": "100m", **(serving or {})}
    upstream = Upstream(settings.upstream_host, settings.user_port)
    breaker = breaker_for(settings.container_concurrency)
    stat = StatReporter(settings.pod)
    inference = Inference(
        settings,
        ServingSettings.from_env({"SPONGE_" + name.replace("-", "_").upper(): value for name, value in env.items()}),
        upstream,
        breaker,
        stat,
        request_metrics,
    )
    servers = build(
        settings,
        upstream=upstream,
        inference=inference.endpoint,
        admin_routes=inference.admin_routes,
        breaker=breaker,
        stat=stat,
        metrics_app=inference.metrics_app,
        finish=inference.close,
    )
    await servers.start()
    inference.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        try:
            yield Live(model, servers, inference, session, breaker)
        finally:
            await session.close()
            await servers.stop()
            await model.kill()
