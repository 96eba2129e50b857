"""The proxy's listeners in one process and one loop: which port serves what, and in which order they stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from knative_sponge.proxy.app import InferenceHandler, admin_app, data_app
from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.http.tls import Certificates
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.knative.observe import Observers
from knative_sponge.proxy.knative.stat import StatReporter
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ProxySettings

_KEEP_ALIVE_S = 600
"""Of the ports that stock uvicorn serves; Go's clients reuse a connection that was idle for 90 s."""


class Listener(uvicorn.Server):
    """One port. Unlike uvicorn's own server it takes no signals and has no ticking loop: `Servers` starts and stops it.

    http: protocol class, or uvicorn's name of one.
    grace_s: how long requests in flight may hold up `stop`; None is for ever.
    certificates: of a port that speaks TLS.
    """

    tunnel_grace_s: ClassVar[float] = 60.0
    """How long connections that have switched protocols may hold up `stop` (docs/knative-contract.md §1.11)."""

    def __init__(
        self,
        app: ASGIApp,
        host: str | None,
        port: int,
        *,
        http: type[asyncio.Protocol] | str = "httptools",
        grace_s: int | None = 1,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=http,
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
            )
        )
        self._host = host
        self._port = port
        self._certificates = certificates
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        self._socket = _bind(self._host, self._port)
        self.config.load()
        if self._certificates is not None:
            self.config.ssl = self._certificates.context
            self._certificates.start()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[self._socket])

    async def stop(self) -> None:
        """Accept no more connections, close idle ones, finish what is in flight."""
        if self._socket is None:
            return
        if self._certificates is not None:
            self._certificates.stop()
        cutting = asyncio.get_running_loop().call_later(self.tunnel_grace_s, self._cut_tunnels)
        await self.shutdown(sockets=[self._socket])
        cutting.cancel()
        self._socket = None

    def _cut_tunnels(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.cut_tunnel()

    @property
    def port(self) -> int:
        """The port in use, once started."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port


class Servers:
    """All ports of one proxy.

    data: users' requests and Knative's probes; over TLS too, given certificates. admin: the preStop hook and control.
    stat: Knative's autoscaler. metrics: Prometheus. An application that is None leaves its port closed.
    finish: awaited when no request is in flight any more; ends what would hold the other ports open.
    """

    def __init__(
        self,
        settings: ProxySettings,
        drain: Drain,
        upstream: Upstream,
        *,
        data: ASGIApp,
        admin: ASGIApp,
        stat: ASGIApp | None,
        metrics: ASGIApp | None,
        certificates: Certificates | None = None,
        finish: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        host = settings.host
        self.drain = drain
        self.data = Listener(data, host, settings.serving_port, http=HttpProtocol, grace_s=None)
        self.tls: Listener | None = None
        if certificates is not None:
            self.tls = Listener(
                data, host, settings.tls_port, http=HttpProtocol, grace_s=None, certificates=certificates
            )
        self.admin = Listener(admin, host, settings.admin_port)
        self.stat = None if stat is None else Listener(stat, host, settings.stat_port)
        self.metrics = None if metrics is None else Listener(metrics, host, settings.metrics_port)
        self._upstream = upstream
        self._finish = finish

    async def start(self) -> None:
        """Listen on every port, the data port last: who can reach it can reach all. Raises OSError."""
        for listener in (self.metrics, self.stat, self.admin, self.tls, self.data):
            if listener is not None:
                await listener.start()

    async def stop(self) -> None:
        """Leave: wait for quiet, finish requests in flight, then close the ports that tell others about them."""
        await self.drain.terminate()
        await asyncio.gather(*(one.stop() for one in (self.data, self.tls) if one is not None))
        if self._finish is not None:
            await self._finish()
        await asyncio.gather(*(one.stop() for one in (self.stat, self.metrics, self.admin) if one is not None))
        self._upstream.close()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then leave in order; a second signal kills. Raises OSError."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()

        def leave() -> None:
            asked.set()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)

        # Before the ports open: who can reach them may also ask the process to leave.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave)
        await self.start()
        # What start-up made lives as long as the process: no collection need look at it again.
        gc.collect()
        gc.freeze()
        await asked.wait()
        await self.stop()


def build(
    settings: ProxySettings,
    *,
    upstream: Upstream,
    inference: InferenceHandler | None = None,
    admin_routes: Sequence[BaseRoute] = (),
    breaker: Breaker | None = None,
    stat: StatReporter | None = None,
    observers: Observers | None = None,
    metrics_app: ASGIApp | None = None,
    finish: Callable[[], Awaitable[None]] | None = None,
) -> Servers:
    """The whole proxy in front of `upstream`, not yet listening. Raises SettingError for unusable certificates."""
    drain = Drain(settings.drain_quiet_s)
    return Servers(
        settings,
        drain,
        upstream,
        data=data_app(settings, upstream, drain, inference, breaker=breaker, stat=stat, observers=observers),
        admin=admin_app(drain, admin_routes),
        stat=stat,
        metrics=metrics_app,
        certificates=Certificates.mounted(settings),
        finish=finish,
    )


def _bind(host: str | None, port: int) -> socket.socket:
    """A listening socket; without a host, on all interfaces of both families where the system has both."""
    if host is None:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address, family=family)
