"""A port whose wire can be cut, and a loop of each kind with an end to its patience."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.controller.admission.webhook_kit import LOOPS, PATIENCE_S

LOCAL = "127.0.0.1"


class Wire:
    """A port in front of another one. While it is cut, it takes connections and bytes and gives nothing back."""

    def __init__(self, port: int = 0) -> None:
        self.cut = False
        self.asked = asyncio.Event()
        """Set when something was sent into a cut wire."""
        self.port = 0
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, LOCAL, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        back: asyncio.Task[None] | None = None
        try:
            while data := await reader.read(65536):
                if self.cut:
                    self.asked.set()
                    continue
                if there is None:
                    answers, there = await asyncio.open_connection(LOCAL, self._to)
                    back = asyncio.create_task(self._return(answers, writer))
                there.write(data)
        except OSError:
            pass
        finally:
            if back is not None:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
            for each in (there, writer):
                if each is not None:
                    each.transport.abort()

    async def _return(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await answers.read(65536):
            if not self.cut:
                writer.write(data)
        writer.close()


def run_on(loop: str, body: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await body

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


# One call
