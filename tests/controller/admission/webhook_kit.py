"""The webhook on a port, certificates in a test's hand, and connections as the API server makes them."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from knative_sponge.controller.admission.certificate import Certificates, dns_names, make
from knative_sponge.controller.admission.webhook import WebhookServer
from knative_sponge.controller.cluster.control_token import Control
from tests.controller.admission.fake_store import SETTINGS

LOCAL = "127.0.0.1"
NAMES = dns_names(SETTINGS.webhook_service, SETTINGS.namespace)
LIFETIME_S = 3600.0
PATIENCE_S = 20.0
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
DIGEST = hashlib.sha256(b"a token").hexdigest()


def on_loops(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop: str) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test()

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(bounded())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@dataclass
class Held:
    """Certificates that a test holds in its hand. error: raised instead."""

    certificates: Certificates | None = None
    error: Exception | None = None
    reads: int = 0

    async def read(self) -> Certificates | None:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.certificates


@dataclass
class Serving:
    server: WebhookServer
    source: Held
    registry: CollectorRegistry
    connections: list[Connection] = field(default_factory=list)

    async def connect(self, authorities: bytes | None = None, local: str = LOCAL) -> Connection:
        """A connection as the API server makes it: the name is checked against what it trusts. local: whence it comes."""
        if authorities is None:
            assert self.source.certificates is not None
            authorities = self.source.certificates.authorities
        context = ssl.create_default_context(cadata=authorities.decode())
        reader, writer = await asyncio.open_connection(
            LOCAL, self.server.port, ssl=context, server_hostname=NAMES[0], limit=2**24, local_addr=(local, 0)
        )
        self.connections.append(Connection(reader, writer))
        return self.connections[-1]

    async def show(self, certificates: Certificates) -> None:
        """Put other certificates in place and wait until they are taken up."""
        self.source.certificates = certificates
        before = self.source.reads
        self.server.wake()
        await until(lambda: self.source.reads > before)
        await asyncio.sleep(0)

    def count(self, webhook: str, outcome: str) -> float | None:
        labels = {"webhook": webhook, "outcome": outcome}
        return self.registry.get_sample_value("sponge_webhook_reviews_total", labels)


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def serial(self) -> str:
        """Of the certificate that this connection was shown."""
        serial: str = self.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        return serial

    async def ask(self, path: str, body: bytes, method: str = "POST") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: {NAMES[0]}\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        return int(answer.split()[1]), await self.reader.readexactly(length)


@asynccontextmanager
async def serving(source: Held, *, now: Callable[[], float] = time.time) -> AsyncIterator[Serving]:
    registry = CollectorRegistry()
    server = WebhookServer(
        SETTINGS, source, registry, lambda _namespace, _cores: Control("1.n", DIGEST), host=LOCAL, now=now
    )
    await server.start()
    running = Serving(server, source, registry)
    try:
        if source.certificates is not None:
            await until(lambda: server.ready)
        yield running
    finally:
        for connection in running.connections:
            connection.writer.close()
        await server.stop()


def fresh() -> Certificates:
    return make(NAMES, LIFETIME_S, time.time())
