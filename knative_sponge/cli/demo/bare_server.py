"""A model server alone, held to a size and without proxy: what a profile is measured on. Measures nothing itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

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
    """Async context manager; satisfies `profile.measure.SizedServer`.

    command: `{port}` in any word becomes its port. path: where inference calls go. hook: route that is told the cores.
    batch: the call that carries so many rows.
    """

    def __init__(
        self, command: Sequence[str], path: str, hook: str | None, batch: Callable[[int], Body], output: Sink
    ) -> None:
        self._command = command
        self._path = path
        self._hook = hook
        self._batch = batch
        self._output = output
        self._control: CpuControl | None = None
        self._child: ChildTree | None = None
        self._session: aiohttp.ClientSession | None = None
        self._url = ""

    async def __aenter__(self) -> Self:
        """Raises SpongeError when the server does not come up."""
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def resize(self, cores: float) -> float:
        """See `SizedServer.resize`."""
        assert self._control is not None
        assert self._session is not None
        size = self._control.apply(min(cores, self._control.limit_cores))
        if self._hook is not None:
            async with self._session.post(self._url + self._hook, json={"cores": size}) as answer:
                await answer.read()
                if not answer.ok:
                    raise SpongeError(f"the model server's CPU hook answered {answer.status}")
        return size

    async def infer(self, rows: int) -> None:
        """See `SizedServer.infer`."""
        assert self._session is not None
        client = HttpClient(self._session, self._url + self._path, (self._batch(rows),))
        try:
            reply = await client.send(0, {})
        except OSError as error:
            raise SpongeError(f"the model server broke off: {error}") from error
        if reply.status != 200:
            raise SpongeError(f"the model server answered {reply.status} to a batch of {rows}")

    async def _start(self) -> None:
        self._control = choose_control().control
        port = Ports.choose(_HOST, public=0, server=0).server
        self._control.apply(min(self._control.limit_cores, float(len(os.sched_getaffinity(0)))))
        self._child = await ChildTree.start(
            [word.replace("{port}", str(port)) for word in self._command],
            env={**os.environ, "PORT": str(port)},
            sink=self._output,
            entry=self._control.entry,
        )
        self._control.attach(self._child.guardian)
        accepting = asyncio.ensure_future(wait_accepting(_HOST, port))
        ended = asyncio.ensure_future(self._child.wait())
        try:
            await asyncio.wait({accepting, ended}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
            if not accepting.done() or ended.done():
                raise SpongeError(f"the model server did not start:\n{self._child.last_lines()}")
        finally:
            accepting.cancel()
            ended.cancel()
        self._url = f"http://{_HOST}:{port}"
        self._session = aiohttp.ClientSession()

    async def _stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._child is not None:
            await self._child.stop(_GRACE_S)
        if self._control is not None:
            await asyncio.to_thread(self._control.close)
