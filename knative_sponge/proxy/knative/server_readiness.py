"""Asks the model server whether it is ready, as the user's probe says (docs/knative-contract.md §1.4); caches nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Final
from urllib.parse import urljoin, urlsplit

from knative_sponge.errors import UpstreamError
from knative_sponge.proxy.http.headers import request_head
from knative_sponge.proxy.upstream.connection import Connection
from knative_sponge.settings import Probe

_Ask = Callable[[str, Sequence[tuple[str, str]]], Awaitable[tuple[int, str | None]]]

_HOP_BY_HOP: Final = frozenset({"host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
"""Fields of a probe that HTTP/2 does not carry."""

_LONGEST_URL: Final = 8192
"""Characters of where a redirect leads. `urlsplit` keeps the last texts that it was given."""


class Readiness:
    """Whether the model server passes every one of the user's probes; without probes it always is ready.

    Callers that come while a check runs share its result, and a caller that leaves does not stop it.

    detect_http2: HTTP probes without TLS ask by HTTP/2 with prior knowledge first, and by HTTP/1.1 when that fails.
    """

    give_up_s: ClassVar[float] = 10.0
    """How long a probe without a period is tried before it has failed."""
    interval_s: ClassVar[float] = 0.05
    """Of such a probe: from the start of one attempt to the start of the next."""
    attempt_s: ClassVar[float] = 0.1
    """Of such a probe: how long one attempt may take."""

    def __init__(self, probes: Sequence[Probe], *, detect_http2: bool = False) -> None:
        self._probes = tuple(probes)
        self._detect_http2 = detect_http2
        if detect_http2 or any(probe.service is not None for probe in self._probes):
            # Few pods need HTTP/2, so the others start without it. The first attempt has no time to load it.
            import knative_sponge.proxy.knative.http2_probe  # noqa: F401, PLC0415
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
            return await self._attempt(probe, probe.timeout_s)
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        passed = 0
        while True:
            next_s = loop.time() + self.interval_s
            passed = passed + 1 if await self._attempt(probe, self.attempt_s) else 0
            if passed >= probe.success_threshold:
                return True
            if next_s >= start_s + self.give_up_s:
                return False
            await asyncio.sleep(next_s - loop.time())

    async def _attempt(self, probe: Probe, timeout_s: float) -> bool:
        if not self._detect_http2 or probe.path is None or probe.tls:
            return await _passes(probe, timeout_s)
        # As Go does it: the first attempt carries no fields of the probe's own, and only HTTP/2 is asked a second time.
        bare = replace(probe, headers=())
        if not await _passes(bare, timeout_s, _status_http2):
            return await _passes(bare, timeout_s)
        return await _passes(probe, timeout_s, _status_http2)


async def _passes(probe: Probe, timeout_s: float, ask: _Ask | None = None) -> bool:
    """One question. ask: how an HTTP probe is asked; None is HTTP/1.1."""
    try:
        async with asyncio.timeout(timeout_s):
            if probe.service is not None:
                from knative_sponge.proxy.knative.http2_probe import serving  # noqa: PLC0415

                return await serving(probe.host, probe.port, probe.service)
            if probe.path is None:
                return await _connect(probe)
            return await _get(probe, ask or _status)
    except (OSError, TimeoutError, UpstreamError, ValueError):
        return False


async def _connect(probe: Probe) -> bool:
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, probe.host, probe.port)
    transport.abort()
    return True


async def _get(probe: Probe, ask: _Ask) -> bool:
    """GET on a connection of its own, redirects followed as Go's client does."""
    scheme = "https" if probe.tls else "http"
    host = f"[{probe.host}]" if ":" in probe.host else probe.host
    url = f"{scheme}://{host}:{probe.port}{probe.path}"
    for _ in range(10):
        status, location = await ask(url, probe.headers)
        if location is None or not 300 <= status < 400:
            return 200 <= status < 400
        if len(url) + len(location) > _LONGEST_URL:
            return False
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


async def _status_http2(url: str, headers: Sequence[tuple[str, str]]) -> tuple[int, str | None]:
    from knative_sponge.proxy.knative.http2_probe import exchange  # noqa: PLC0415

    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url} cannot be probed")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"user-agent": "kube-probe//", "accept-encoding": "gzip"}
    fields |= {name.lower(): value for name, value in headers if name.lower() not in _HOP_BY_HOP}
    pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", parts.netloc), (":path", target)]
    reply = await exchange(parts.hostname, parts.port or 80, [*pseudo, *fields.items()])
    location = reply.headers.get(b"location")
    return reply.status, None if location is None else location.decode("latin-1")
