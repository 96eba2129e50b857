"""A client of the proxy's admin port: demand in, cores out (docs/design.md §5.2); decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from knative_sponge.errors import SpongeError

_LIMIT: Final = 1 << 20
_REPLY_S: Final = 2.0


class Phase(StrEnum):
    """How far a change of size has come."""

    PATCHED = "patched"
    ACTUATED = "actuated"


class AdminError(SpongeError):
    """The admin port cannot be reached or does not answer as agreed."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One line of the demand stream.

    want: least cores it needs. cores: what it plans with. rate: rows per second. queued, running: requests.
    """

    want: float
    cores: float
    rate: float
    queued: int
    running: int

    @classmethod
    def parse(cls, line: bytes) -> Demand:
        """Raises AdminError when the line is not a demand of version 1."""
        try:
            fields = json.loads(line)
            if fields["v"] != 1:
                raise AdminError(f"demand of version {fields['v']}, not 1")
            demand = cls(
                float(fields["want"]),
                float(fields["cores"]),
                float(fields["rate"]),
                int(fields["queued"]),
                int(fields["running"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise AdminError(f"not a demand: {line[:200]!r}") from error
        if not (0 < demand.want < math.inf):
            raise AdminError(f"a demand of {demand.want} cores")
        return demand


class AdminClient:
    """HTTP/1.1 to one proxy, a connection per call. All methods raise AdminError."""

    def __init__(self, host: str, port: int, token: str, *, silence_s: float = 5.0) -> None:
        """silence_s: a demand stream that says nothing for so long is dead; the proxy speaks every second."""
        self._host = host
        self._port = port
        self._token = token
        self._silence_s = silence_s

    async def put_cores(self, cores: float, phase: Phase) -> None:
        """Tell the proxy its size."""
        body = json.dumps({"cores": cores, "phase": phase}).encode()
        async with self._call("PUT", "/sponge/v1/cores", body):
            pass

    async def demands(self) -> AsyncGenerator[Demand, None]:
        """The demand stream, from one connection; ends when the proxy ends it; AdminError when it is silent."""
        async with self._call("GET", "/sponge/v1/demand") as chunks:
            rest = b""
            while True:
                async with asyncio.timeout(self._silence_s):
                    chunk = await anext(chunks, b"")
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LIMIT:
                    raise AdminError("a demand without end")
                for line in lines:
                    if line.strip():
                        yield Demand.parse(line)

    @asynccontextmanager
    async def _call(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[AsyncIterator[bytes]]:
        """Send one request; the body's chunks of a 2xx answer."""
        writer = None
        try:
            async with asyncio.timeout(_REPLY_S):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=_LIMIT)
                writer.write(self._head(method, path, len(body)) + body)
                status, headers = await _read_head(reader)
            if not 200 <= status < 300:
                raise AdminError(f"{method} {path} was answered with {status}")
            yield _chunks(reader, headers)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:  # TimeoutError is an OSError
            raise AdminError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def _head(self, method: str, path: str, length: int) -> bytes:
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}:{self._port}", f"authorization: Bearer {self._token}"]
        lines += ["connection: close"]
        if length:
            lines += ["content-type: application/json", f"content-length: {length}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    version, status, *_ = (await reader.readuntil(b"\r\n")).decode("latin-1").split(None, 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(f"{version!r} is not HTTP/1")
    headers: dict[str, str] = {}
    while line := (await reader.readuntil(b"\r\n")).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return int(status), headers


async def _chunks(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body in pieces as they arrive, whichever of HTTP/1.1's three framings it has."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        return
    left = int(headers["content-length"]) if "content-length" in headers else None
    while left is None or left > 0:
        data = await reader.read(65536 if left is None else min(left, 65536))
        if not data:
            if left is not None:
                raise EOFError("the answer ended early")
            return
        if left is not None:
            left -= len(data)
        yield data
