"""Tells the model server how many cores it has (annotation `cpu-hook`). Latest size wins; a failing hook fails nothing else."""

from __future__ import annotations

import asyncio
import json
import logging

from knative_sponge.codec.base import Call
from knative_sponge.errors import RequestFailed
from knative_sponge.proxy.queue.endpoint import Upstream

logger = logging.getLogger(__name__)

_PATIENCE_S = 2.0


class CpuHook:
    """`POST <path>` with `{"cores": 1.2}`, one call at a time; sizes that come meanwhile replace each other."""

    def __init__(self, path: str, upstream: Upstream) -> None:
        self._path = path.encode()
        self._upstream = upstream
        self._next: float | None = None
        self._told: float | None = None
        self._task: asyncio.Task[None] | None = None

    def tell(self, cores: float) -> None:
        """Let the model server know, soon; a size it was told last is not repeated."""
        if cores == (self._told if self._next is None else self._next):
            return
        self._next = cores
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop telling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._next is not None:
            cores, self._next = self._next, None
            self._told = cores
            body = json.dumps({"cores": cores}).encode()
            call = Call("POST", self._path, [(b"content-type", b"application/json")], body)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    answer = await self._upstream.fetch(call)
            except (RequestFailed, TimeoutError) as error:
                self._told = None
                logger.warning("cpu hook %s: %s", self._path.decode(), str(error) or "no answer")
                continue
            if answer.status >= 300:
                logger.warning("cpu hook %s: the model server answered %d", self._path.decode(), answer.status)
