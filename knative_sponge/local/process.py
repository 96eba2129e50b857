"""One child process tree under its guardian: starts, watches and ends it; knows nothing of cores or HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from knative_sponge.errors import SpongeError
from knative_sponge.local import guardian
from knative_sponge.local.cpu.control import Entry

Sink = Callable[[bytes], None]
"""Takes the bytes that a process writes to standard output and error, in order."""

_TAIL_BYTES: Final = 4096


class ServiceError(SpongeError):
    """The model server or the proxy did not start; the message ends with its last lines of output.

    status: the model server's exit status when it was the one that ended, else 1; never 0.
    """

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status or 1


class ChildTree:
    """A command and everything it starts.

    The whole tree is gone when `wait` returns. It is also gone soon after this process has died, however it died (guardian).
    """

    def __init__(self, process: asyncio.subprocess.Process, sink: Sink) -> None:
        self._process = process
        self._sink = sink
        self._tail = b""
        self._pump = asyncio.create_task(self._forward())
        self._ended = asyncio.create_task(self._wait())

    @classmethod
    async def start(
        cls, command: Sequence[str], *, env: Mapping[str, str], sink: Sink, entry: Entry | None = None
    ) -> ChildTree:
        """Start `command` with exactly the environment `env`. `entry` puts it under control before its own code runs.

        A command that cannot be started ends at once with 125, 126 or 127 and says why on its output. Raises ServiceError when
        not even this interpreter, in which the guardian runs, can be started again.
        """
        entry = Entry() if entry is None else entry
        argv = [sys.executable, "-I", "-S", str(Path(guardian.__file__))]
        for path in entry.joins:
            argv += ["--join", str(path)]
        if entry.cpus:
            argv += ["--cpus", ",".join(map(str, sorted(entry.cpus)))]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                "--",
                *command,
                env=dict(env),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal reaches the runner only, which ends both programs in order
            )
        except OSError as error:
            what = error.filename if error.filename else sys.executable
            status = 127 if isinstance(error, FileNotFoundError) else 126
            raise ServiceError(f"cannot start {what}: {error.strerror}", status=status) from error
        except ValueError as error:  # a word with a zero byte
            raise ServiceError(f"cannot start {command[0]!r}: {error}", status=126) from error
        return cls(process, sink)

    @property
    def guardian(self) -> int:
        """Pid of the guardian; the whole tree is below it."""
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self._ended.done()

    def last_lines(self, count: int = 10) -> str:
        """The last lines that the tree has written, for error messages."""
        return "\n".join(self._tail.decode(errors="replace").splitlines()[-count:])

    async def wait(self) -> int:
        """Exit status of the command, 128 + signal if a signal ended it. By then the tree is gone and all output is read."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """SIGKILL everything."""
        self._order(b"K")

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM, and `grace_s` later SIGKILL to all that is left; returns as `wait`."""
        self._order(b"T")
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.wait(), grace_s)
        self.kill()
        return await self.wait()

    def _order(self, letter: bytes) -> None:
        pipe = self._process.stdin
        if pipe is not None and not pipe.is_closing():
            with contextlib.suppress(OSError):
                pipe.write(letter)

    async def _wait(self) -> int:
        status = await self._process.wait()
        if status >= 0:
            await self._pump
            return status
        # The guardian itself was killed. The command dies with it (PDEATHSIG), but the processes that the command started do
        # not. They may hold the pipe open; they end when the cgroup's owner closes the group.
        self._pump.cancel()
        return 128 - status

    async def _forward(self) -> None:
        pipe = self._process.stdout
        while pipe is not None and (data := await pipe.read(65536)):
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            self._sink(data)
