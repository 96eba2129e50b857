"""The proxy's listeners in one process and one loop: which port serves what, and in which order they stop."""

from __future__ import annotations

import asyncio
import functools
import gc
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from starlette.routing import BaseRoute

from knative_sponge.asgi import ASGIApp
from knative_sponge.bounded_protocol import PortLimits
from knative_sponge.listener import Listener
from knative_sponge.proxy.app import InferenceHandler, admin_app, data_app
from knative_sponge.proxy.http.bounds import Bounds
from knative_sponge.proxy.http.head_limits import HeadLimits
from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.http.tls import Certificates
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.knative.node import Node
from knative_sponge.proxy.knative.observe import Observers
from knative_sponge.proxy.knative.stat import StatReporter
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ProxySettings


class DataListener(Listener):
    """A port of users' requests: it speaks what a transparent proxy must, and waits for ever for requests in flight.

    certificates: of a port that speaks TLS; their files are followed while it listens.
    bounds: of what its clients may take, shared with other data ports; None is its own.
    """

    tunnel_grace_s: ClassVar[float] = 60.0
    """How long connections that have switched protocols may hold up `stop` (docs/knative-contract.md §1.11)."""

    def __init__(
        self,
        app: ASGIApp,
        host: str | None,
        port: int,
        *,
        certificates: Certificates | None = None,
        http: type[HttpProtocol] = HttpProtocol,
        grace_s: int | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        tls = None if certificates is None else certificates.context
        bounded = functools.partial(http, bounds=Bounds() if bounds is None else bounds)
        super().__init__(app, host, port, http=bounded, tls=tls, grace_s=grace_s)
        self._certificates = certificates

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        await super().start()
        if self._certificates is not None:
            self._certificates.start()

    async def stop(self) -> None:
        """As `Listener.stop`; connections that have switched protocols are cut when their grace is over."""
        if self._certificates is not None:
            self._certificates.stop()
        cutting = asyncio.get_running_loop().call_later(self.tunnel_grace_s, self._cut_tunnels)
        await super().stop()
        cutting.cancel()

    def _cut_tunnels(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.cut_tunnel()


class Servers:
    """All ports of one proxy.

    data: users' requests and Knative's probes; over TLS too, given certificates. admin: the preStop hook and control.
    stat: Knative's autoscaler. metrics: Prometheus. An application that is None leaves its port closed.
    bounds: of what users' clients may take.
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
        bounds: Bounds,
        certificates: Certificates | None = None,
        finish: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        host = settings.host

        class Protocol(HttpProtocol):
            head_limits = HeadLimits(settings.max_head, settings.max_head_fields)

        self.drain = drain
        self.data = DataListener(data, host, settings.serving_port, http=Protocol, bounds=bounds)
        self.tls: DataListener | None = None
        if certificates is not None:
            self.tls = DataListener(
                data, host, settings.tls_port, certificates=certificates, http=Protocol, bounds=bounds
            )
        # The demand is a stream without end, and a drain takes as long as it takes.
        self.admin = Listener(admin, host, settings.admin_port, limits=PortLimits(answer_s=None))
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

        # Before the ports open: whoever can reach them may send a signal too.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave)
        await self.start()
        # Objects of the start-up live as long as the process: no later collection need look at them.
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
    hook: str | None = None,
    bounds: Bounds | None = None,
) -> Servers:
    """The whole proxy in front of `upstream`, not yet listening. Raises SettingError for unusable certificates.

    bounds: their budget should be that of `upstream` and `inference` too; None is its own.
    """
    drain, node = Drain(settings.drain_quiet_s), Node(settings.host_ips)
    return Servers(
        settings,
        drain,
        upstream,
        data=data_app(
            settings, upstream, drain, inference, breaker=breaker, stat=stat, observers=observers, node=node, hook=hook
        ),
        admin=admin_app(drain, node, admin_routes),
        stat=stat,
        metrics=metrics_app,
        bounds=Bounds() if bounds is None else bounds,
        certificates=Certificates.mounted(settings),
        finish=finish,
    )
