"""TCP ports: finding free ones, and waiting until one accepts connections; speaks no protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from knative_sponge.errors import SettingError

LOOPBACK: Final = "127.0.0.1"
"""Where the model server is reached."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of model server and proxy."""

    public: int
    server: int
    admin: int
    stat: int
    metrics: int
    tls: int

    @classmethod
    def choose(
        cls,
        host: str,
        *,
        public: int = 0,
        server: int = 0,
        admin: int = 0,
        metrics: int = 0,
        server_host: str = LOOPBACK,
    ) -> Ports:
        """The ports named, and a free one for every 0. All but the server's are the proxy's, on `host`.

        Raises SettingError when `host` is no address of this machine, or when a named port cannot be had. Another program may
        still take a port before it is used. The caller then sees its own child fail to listen.
        """
        with contextlib.ExitStack() as stack:
            family = _family(host)

            def take(name: str, number: int, at: str = host, kind: socket.AddressFamily = family) -> int:
                listener = stack.enter_context(socket.socket(kind))
                # Servers set it too, so a port in TIME_WAIT counts as free.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listener.bind((at, number))
                    listener.listen(1)
                except OSError as error:
                    raise SettingError(name, number, f"a port that is free on {at} ({error.strerror})") from error
                return int(listener.getsockname()[1])

            # Named ports are taken first: a free one might otherwise be the very port that is named next.
            wanted = {"port": public, "admin-port": admin, "metrics-port": metrics}
            named = {name: take(name, port) for name, port in wanted.items() if port}

            def proxys(name: str) -> int:
                return named.get(name) or take(name, 0)

            server = take("server-port", server, server_host, socket.AF_INET)
            return cls(
                public=proxys("port"),
                server=server,
                admin=proxys("admin-port"),
                metrics=proxys("metrics-port"),
                stat=take("stat port", 0),
                tls=take("TLS port", 0),
            )

    @contextlib.contextmanager
    def held(self, host: str) -> Iterator[None]:
        """Keep the proxy's ports from becoming the near end of somebody's connection while the model server loads.

        A port that is bound is given to nobody who asks for any port; a program that names it can still have it.
        """
        with contextlib.ExitStack() as stack:
            family = _family(host)
            for port in (self.public, self.admin, self.stat, self.metrics, self.tls):
                holder = stack.enter_context(socket.socket(family))
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    holder.bind((host, port))
            yield


def _family(host: str) -> socket.AddressFamily:
    """Of the sockets that listen on `host`. Raises SettingError when nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.bind((host, 0))
    except (OSError, UnicodeError) as error:  # a name may also be one that cannot be encoded for the resolver
        why = getattr(error, "strerror", None) or str(error)
        raise SettingError("host", host, f"an address of this machine, such as 127.0.0.1 or 0.0.0.0 ({why})") from error
    return family


async def accepts(host: str, port: int) -> bool:
    """Whether a TCP connection is accepted at this moment."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def wait_accepting(host: str, port: int, retry_s: float = 0.02) -> None:
    """Return as soon as a TCP connection is accepted; the caller bounds the wait.

    No event tells that another process begins to listen, so this tries again every `retry_s`.
    """
    while True:
        if await accepts(host, port):
            return
        await asyncio.sleep(retry_s)
