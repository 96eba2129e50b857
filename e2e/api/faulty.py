"""A bad way to the API server: a reverse proxy that refuses, delays, cuts and swallows as it is told. It changes no request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from e2e.api.client import Object

_PASSED = ("Accept", "Authorization", "Content-Type")
_HALF_AN_EVENT = b'{"type":"MODIF'


@dataclass(slots=True)
class Call:
    """A request. at_s: when it came, by the loop's clock. status: of the server's own answer; 0 while it gave none."""

    at_s: float
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    status: int = 0

    @property
    def watches(self) -> bool:
        """Is its answer a stream?"""
        return "watch" in self.query

    @property
    def writes(self) -> bool:
        """Does it change something?"""
        return self.method != "GET"


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a request.

    status: what it is answered instead, without the server hearing of it; 0 passes it on. cut: the server does what it is
    asked for, and the connection breaks in the middle of its answer.
    """

    status: int = 0
    reason: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False

    def body(self) -> Object:
        """The answer of a server that refuses."""
        about = {"code": self.status, "reason": self.reason, "message": self.message}
        return {"kind": "Status", "apiVersion": "v1", "status": "Failure", **about}


_NONE = Fault()


@dataclass(slots=True)
class _Rule:
    matches: Callable[[Call], bool]
    faults: Iterator[Fault]
    hit: list[Call] = field(default_factory=list)


class Faulty:
    """`async with Faulty(...) as way:` leads from `way.url`, without TLS, to the API server. One per replica.

    context: how to connect to it. Who calls is told by the caller's own token.
    """

    def __init__(self, target: str, context: ssl.SSLContext) -> None:
        self.url = ""
        self.calls: list[Call] = []
        """Every request that came, in order."""
        self._target = target
        self._context = context
        self._rules: list[_Rule] = []
        self._open = asyncio.Event()
        self._open.set()
        self._watching: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Faulty:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A request whose client has left is not carried out later.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._context, limit=0))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.set()
        await self._runner.cleanup()
        await self._session.close()

    def writes(self, to: str = "") -> list[Call]:
        """The calls so far that change something below a path that ends so."""
        return [call for call in self.calls if call.writes and call.path.endswith(to)]

    @contextlib.contextmanager
    def fault(self, *faults: Fault, to: Callable[[Call], bool], lasting: bool = False) -> Iterator[list[Call]]:
        """While the block runs, the first calls that match meet these faults, one each; lasting: over and over.

        Yields the calls that did.
        """
        rule = _Rule(to, itertools.cycle(faults) if lasting else iter(faults))
        self._rules.append(rule)
        try:
            yield rule.hit
        finally:
            self._rules.remove(rule)

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """While the block runs connections stay, and nothing passes in either direction."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def cut_watches(self) -> int:
        """Break all watches in the middle of an event. Returns how many there were."""
        for transport in self._watching:
            transport.write(b"%x\r\n%b\r\n" % (len(_HALF_AN_EVENT), _HALF_AN_EVENT))
            transport.close()
        return len(self._watching)

    def _fault(self, call: Call) -> Fault:
        for rule in self._rules:
            if rule.matches(call) and (fault := next(rule.faults, None)) is not None:
                rule.hit.append(call)
                return fault
        return _NONE

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        now = asyncio.get_running_loop().time()
        call = Call(now, request.method, request.path, dict(request.query), json.loads(data) if data else None)
        self.calls.append(call)
        fault = self._fault(call)
        await asyncio.sleep(fault.delay_s)
        await self._open.wait()
        if fault.status:
            return web.json_response(fault.body(), status=fault.status, headers=dict(fault.headers))
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        url = URL(self._target + request.raw_path, encoded=True)
        try:
            async with self._session.request(request.method, url, data=data, headers=headers) as answer:
                call.status = answer.status
                if call.watches and answer.status == 200:
                    return await self._stream(request, answer)
                body = await answer.read()
                await self._open.wait()
                if fault.cut:
                    return await _cut(request, answer, body)
                return web.Response(body=body, status=answer.status, content_type=answer.content_type)
        except (aiohttp.ClientError, OSError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = _transport(request)
        self._watching.add(transport)
        try:
            async for data in answer.content.iter_any():
                await self._open.wait()
                await response.write(data)
        except (aiohttp.ClientError, OSError):
            transport.abort()
        finally:
            self._watching.discard(transport)
        return response


async def _cut(request: web.Request, answer: aiohttp.ClientResponse, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _transport(request).close()
    return response


def _transport(request: web.Request) -> asyncio.Transport:
    assert isinstance(request.transport, asyncio.Transport)
    return request.transport
