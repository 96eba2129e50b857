"""TCP ports: finding free ones, and waiting until one accepts connections; speaks no protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass

from knative_sponge.errors import SettingError


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of model server and proxy, all distinct."""

    public: int
    server: int
    admin: int
    stat: int
    metrics: int
    tls: int

    @classmethod
    def choose(cls, host: str, *, public: int = 0, server: int = 0) -> Ports:
        """The ports named, and a free one for every 0. Raises SettingError when a named port is in use.

        Another program may still take a port before it is used. The caller then sees its own child fail to listen.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with contextlib.ExitStack() as stack:

            def take(name: str, number: int) -> int:
                listener = stack.enter_context(socket.socket(family))
                # Servers set it too, so a port in TIME_WAIT counts as free.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listener.bind((host, number))
                    listener.listen(1)
                except OSError as error:
                    raise SettingError(name, number, f"a port that is free on {host} ({error.strerror})") from error
                return int(listener.getsockname()[1])

            # Named ports are taken first: a free one might otherwise be the very port that is named next.
            named = {name: take(name, port) for name, port in (("port", public), ("server-port", server)) if port}
            public, server = named.get("port") or take("port", 0), named.get("server-port") or take("server-port", 0)
            return cls(public, server, take("port", 0), take("port", 0), take("port", 0), take("port", 0))


async def wait_accepting(host: str, port: int, retry_s: float = 0.02) -> None:
    """Return as soon as a TCP connection is accepted; the caller bounds the wait.

    No event tells that another process begins to listen, so this tries again every `retry_s`.
    """
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(retry_s)
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
