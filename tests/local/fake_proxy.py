"""Stands in for the proxy: its admin port as docs/design.md §5.2 fixes it, on real sockets; serves no inference.

In a test it runs inside the loop; as `python -m tests.local.fake_proxy` it takes the proxy's environment and writes
what happens, one JSON line each, to the file FAKE_PROXY_LOG. `POST /want {"want": 1.2, ...}` on the admin port makes
it want cores; FAKE_PROXY_MOOD makes it misbehave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from knative_sponge.wire.cores import decode_cores
from knative_sponge.wire.demand import DemandLine, encode_demand
from knative_sponge.wire.http import CORES_PATH, DEMAND_PATH, bearer

Event = tuple[str, Any]


class FakeProxy:
    """One admin port. `seen` gets every event in order."""

    def __init__(self, token: str, seen: Callable[[Event], None], *, cores: float = 1.0) -> None:
        self.refuse_puts = False
        self.asked = 0
        """Demand streams so far, those that ended included."""
        self._token = token
        self._seen = seen
        self.demand = DemandLine(cores=cores, want=cores, curve=((cores, 0.0),))
        self._streams: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._closing = False
        self.port = 0

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._closing = True
        if self._server is not None:
            self._server.close()
        self.break_streams()
        await asyncio.gather(*self._serving)

    def want(self, cores: float, **more: Any) -> None:
        """A new demand, to everybody who listens and will. As many rows arrive as are expected to miss at most."""
        self.demand = replace(self.demand, want=cores, seq=self.demand.seq + 1, **more)
        if self.demand.curve:
            self.demand = replace(self.demand, rate=max(self.demand.rate, self.demand.curve[0][1]))
        for writer in self._streams:
            self._send(writer)

    def repeat(self) -> None:
        """The same demand again, as the proxy does every second."""
        for writer in self._streams:
            self._send(writer)

    def say(self, data: bytes) -> None:
        """Raw bytes, as one chunk, to everybody who listens."""
        for writer in self._streams:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def break_streams(self) -> None:
        for writer in self._streams:
            writer.close()
        self._streams.clear()

    @property
    def listeners(self) -> int:
        return len(self._streams)

    def _send(self, writer: asyncio.StreamWriter) -> None:
        line = encode_demand(self.demand)
        for part in (line[:7], line[7:]):  # a line need not be a chunk
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        await asyncio.shield(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            method, path, _ = head[0].split()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-1])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            status = self._status(method, path, headers, body)
            writer.write(f"HTTP/1.1 {status} Whatever\r\n".encode())
            if status == 200:
                writer.write(b"content-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n")
                self._streams.add(writer)
                self.asked += 1
                self._seen(("demand", self.listeners))
                self._send(writer)
                if not self._closing:
                    await reader.read()  # until the listener leaves
                self._streams.discard(writer)
            else:
                writer.write(b"content-length: 0\r\n\r\n" if status != 204 else b"\r\n")
                await writer.drain()
        writer.close()

    def _status(self, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
        if (method, path) == ("POST", "/want"):
            self.want(**{"cores" if name == "want" else name: value for name, value in json.loads(body).items()})
            return 204
        if headers.get("authorization") != bearer(self._token):
            return 401
        if (method, path) == ("GET", DEMAND_PATH):
            return 200
        if (method, path) == ("PUT", CORES_PATH):
            if self.refuse_puts:
                return 503
            message = decode_cores(body)
            self._seen((message.phase.value, message.cores))
            return 204
        return 404


async def _main() -> None:
    mood = os.environ.get("FAKE_PROXY_MOOD", "")
    if mood == "dies":
        sys.exit("fake proxy: cannot go on")

    def seen(event: Event) -> None:
        with open(os.environ["FAKE_PROXY_LOG"], "a") as log:
            log.write(json.dumps(event) + "\n")

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    proxy = FakeProxy(os.environ["SPONGE_CONTROL_TOKEN"], seen, cores=float(os.environ["FAKE_PROXY_CORES"]))
    await proxy.start(int(os.environ["SPONGE_ADMIN_PORT"]))
    seen(("environment", dict(os.environ)))

    async def public(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(public, os.environ["SPONGE_HOST"], int(os.environ["QUEUE_SERVING_PORT"])):
        await ended.wait()
        seen(("draining", None))
        if mood == "never ends":
            await asyncio.sleep(600)
        # The model server must still be there while the proxy drains.
        _, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["USER_PORT"]))
        seen(("drained", None))
        writer.close()
    await proxy.close()


if __name__ == "__main__":
    asyncio.run(_main())
