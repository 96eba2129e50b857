"""One listening port of a process, plain or TLS, on uvicorn; knows nothing of what is served on it."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from typing import cast

import uvicorn

from knative_sponge.asgi import ASGIApp
from knative_sponge.bounded_protocol import BoundedProtocol, PortLimits, PortState
from knative_sponge.tls_acceptor import TlsAcceptor

_KEEP_ALIVE_S = 600
"""Whoever closes an idle connection first must not be us: a request may be on its way. Go's clients keep one for 90 s,
Prometheus's for 5 minutes. It is uvicorn's rule: a protocol class of ours has one of its own."""


class Listener(uvicorn.Server):
    """A uvicorn server without signal handlers and without its own loop: its owner starts and stops it.

    host: None is all interfaces, IPv4 and IPv6. port: 0 lets the system choose.
    limits: of what one client, and all of them, may take.
    http: makes the protocol of a connection, which then has bounds of its own; None is uvicorn's, within `limits`.
    tls: of a port that speaks TLS. Its certificate may be exchanged while it listens; open connections keep theirs.
    grace_s: how long requests in flight may hold up `stop`; None is for ever.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str | None,
        port: int,
        *,
        limits: PortLimits | None = None,
        http: Callable[..., asyncio.Protocol] | None = None,
        tls: ssl.SSLContext | None = None,
        grace_s: int | None = 1,
    ) -> None:
        if http is None:
            http = functools.partial(BoundedProtocol, port=PortState(PortLimits() if limits is None else limits))
        super().__init__(
            uvicorn.Config(
                app,
                http=http,  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=grace_s,
                ssl_context_factory=None if tls is None else lambda *_: tls,
            )
        )
        self._protocol = http
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be bound."""
        self._socket = _bind(self._host, self._port)
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own, but for how TLS connections are accepted."""
        loop = asyncio.get_running_loop()
        state, config = self.lifespan.state, self.config

        def connected() -> asyncio.Protocol:
            return self._protocol(config=config, server_state=self.server_state, app_state=state)

        self.servers = []
        for one in sockets or ():
            if config.ssl is None:
                self.servers.append(await loop.create_server(connected, sock=one, backlog=config.backlog))
            else:
                acceptor = TlsAcceptor(one, config.ssl, connected)
                acceptor.start(config.backlog)
                self.servers.append(cast("asyncio.Server", acceptor))  # uvicorn only closes it
        self.started = True

    async def stop(self) -> None:
        """Accept no more connections, close idle ones, finish what is in flight; nothing when it does not listen."""
        if self._socket is not None:
            await self.shutdown(sockets=[self._socket])
            self._socket = None

    @property
    def port(self) -> int:
        """The port in use, once started."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port


def _bind(host: str | None, port: int) -> socket.socket:
    """A listening socket; without a host, on all interfaces of both families where the system has both."""
    if host is None:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address, family=family)
