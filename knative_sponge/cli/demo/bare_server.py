"""A model server held to a size, without a proxy: a profile is measured on it. It measures nothing itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import aiohttp

from knative_sponge.errors import SpongeError
from knative_sponge.local.cpu.choice import choose_control
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.ports import Ports, wait_accepting
from knative_sponge.local.process import ChildTree, Sink
from knative_sponge.profile.client import HttpClient
from knative_sponge.profile.load import Body

_HOST: Final = "127.0.0.1"
_START_S: Final = 60.0
_GRACE_S: Final = 5.0


class BareServer:
    """A model server that serves. Satisfies `profile.measure.SizedServer`.

    session, url: how and where it is reached. path: where inference calls go. hook: route that is told the cores, None where
    there is none. batch: the call that carries so many rows.
    """

    def __init__(
        self,
        control: CpuControl,
        session: aiohttp.ClientSession,
        url: str,
        *,
        path: str,
        hook: str | None,
        batch: Callable[[int], Body],
    ) -> None:
        self._control = control
        self._session = session
        self._url = url
        self._path = path
        self._hook = hook
        self._batch = batch

    async def resize(self, cores: float) -> float:
        """See `SizedServer.resize`."""
        size = self._control.apply(min(cores, self._control.limit_cores))
        if self._hook is not None:
            async with self._session.post(self._url + self._hook, json={"cores": size}) as answer:
                await answer.read()
                if not answer.ok:
                    raise SpongeError(f"the model server's CPU hook answered {answer.status}")
        return size

    async def infer(self, rows: int) -> None:
        """See `SizedServer.infer`."""
        client = HttpClient(self._session, self._url + self._path, (self._batch(rows),))
        try:
            reply = await client.send(0, {})
        except OSError as error:
            raise SpongeError(f"the model server broke off: {error}") from error
        if reply.status != 200:
            raise SpongeError(f"the model server answered {reply.status} to a batch of {rows}")


@asynccontextmanager
async def bare_server(
    command: Sequence[str], path: str, hook: str | None, batch: Callable[[int], Body], output: Sink
) -> AsyncIterator[BareServer]:
    """Start the server and end it after the block. Raises SpongeError when it does not come up.

    command: `{port}` in any word becomes the server's port. output: takes what the server writes. Others: see `BareServer`.
    """
    async with AsyncExitStack() as stack:
        control = choose_control().control
        stack.push_async_callback(asyncio.to_thread, control.close)
        port = Ports.choose(_HOST, public=0, server=0).server
        control.apply(min(control.limit_cores, float(len(os.sched_getaffinity(0)))))
        child = await ChildTree.start(
            [word.replace("{port}", str(port)) for word in command],
            env={**os.environ, "PORT": str(port)},
            sink=output,
            entry=control.entry,
        )
        stack.push_async_callback(child.stop, _GRACE_S)
        control.attach(child.guardian)
        await _accepts(child, port)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield BareServer(control, session, f"http://{_HOST}:{port}", path=path, hook=hook, batch=batch)


async def _accepts(child: ChildTree, port: int) -> None:
    """Wait until the server accepts connections. Raises SpongeError when it ends before, or when the time is over."""
    accepting = asyncio.ensure_future(wait_accepting(_HOST, port))
    ended = asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait({accepting, ended}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done() or ended.done():
            raise SpongeError(f"the model server did not start:\n{child.last_lines()}")
    finally:
        accepting.cancel()
        ended.cancel()
