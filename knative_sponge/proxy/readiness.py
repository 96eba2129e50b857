"""Asks the model server whether it is ready, as the user's probe says (knative-contract §1.4); caches nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urljoin, urlsplit

from knative_sponge.errors import UpstreamError
from knative_sponge.proxy.connection import Connection
from knative_sponge.proxy.headers import request_head
from knative_sponge.settings import Probe


class Readiness:
    """All probes must pass; none always does.

    Callers that come while a check runs share its result, and a caller that leaves does not stop it.
    """

    give_up_s: ClassVar[float] = 10.0
    """How long a probe without a period is tried."""
    interval_s: ClassVar[float] = 0.05
    """From the start of one of its attempts to the next."""
    attempt_s: ClassVar[float] = 0.1
    """How long one of its attempts may take."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = tuple(probes)
        self._running: asyncio.Task[bool] | None = None

    async def check(self) -> bool:
        """Whether the model server is ready now."""
        if not self._probes:
            return True
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._check())
            self._running.add_done_callback(self._done)
        return await asyncio.shield(self._running)

    def _done(self, _task: asyncio.Task[bool]) -> None:
        self._running = None

    async def _check(self) -> bool:
        return all(await asyncio.gather(*(self._pass(probe) for probe in self._probes)))

    async def _pass(self, probe: Probe) -> bool:
        if probe.period_s:
            return await _attempt(probe, probe.timeout_s)
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        passed = 0
        while True:
            next_s = loop.time() + self.interval_s
            passed = passed + 1 if await _attempt(probe, self.attempt_s) else 0
            if passed >= probe.success_threshold:
                return True
            if next_s >= start_s + self.give_up_s:
                return False
            await asyncio.sleep(next_s - loop.time())


async def _attempt(probe: Probe, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            if probe.path is None:
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, probe.host, probe.port
                )
                transport.abort()
                return True
            return await _get(probe)
    except (OSError, TimeoutError, UpstreamError, ValueError):
        return False


async def _get(probe: Probe) -> bool:
    """GET on a connection of its own, redirects followed as Go's client does."""
    scheme = "https" if probe.tls else "http"
    host = f"[{probe.host}]" if ":" in probe.host else probe.host
    url = f"{scheme}://{host}:{probe.port}{probe.path}"
    for _ in range(10):
        status, location = await _status(url, probe.headers)
        if location is None or not 300 <= status < 400:
            return 200 <= status < 400
        url = urljoin(url, location)
    return False


async def _status(url: str, headers: Sequence[tuple[str, str]]) -> tuple[int, str | None]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} cannot be probed")
    tls = parts.scheme == "https"
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(loop, lambda _connection: None),
        parts.hostname,
        parts.port or (443 if tls else 80),
        ssl=tls or None,
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {"user-agent": "kube-probe//", "accept-encoding": "gzip"}
        fields |= {name.lower(): value for name, value in headers}
        fields["host"] = parts.netloc
        head = request_head("GET", target.encode("ascii"), [(n.encode(), v.encode()) for n, v in fields.items()])
        connection.begin("GET")
        connection.write(head)
        connection.sent = True
        await connection.head()
        while not connection.head_complete:
            connection.informational = []
            await connection.head()
        location = next((value.decode("latin-1") for name, value in connection.headers if name == b"location"), None)
        return connection.status, location
    finally:
        connection.abort()
