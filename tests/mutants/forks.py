"""Functions run in forked processes, some at a time: each sees what this process has imported and changes nothing of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Generic, TypeVar

Key = TypeVar("Key")
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Task(Generic[Key]):
    """key: whose result it is. run: called in the fork, which ends with it. limit_s: seconds by the clock on the wall."""

    key: Key
    run: Callable[[], None]
    limit_s: float


def forked(tasks: Iterable[Task[Key]], jobs: int) -> Iterator[tuple[Key, int | None]]:
    """The key and the exit code of each task as it ends; None when it was stopped at its limit."""
    waiting = iter(tasks)
    running: dict[int, _Fork[Key]] = {}
    try:
        while True:
            while len(running) < jobs and (task := next(waiting, None)) is not None:
                fork = _Fork(task)
                running[fork.sentinel] = fork
            if not running:
                return
            wait(list(running), timeout=max(0.0, min(fork.end_s for fork in running.values()) - time.monotonic()))
            for fork in list(running.values()):
                if fork.over():
                    del running[fork.sentinel]
                    yield fork.key, fork.exit_code()
    finally:
        for fork in running.values():
            fork.stop()


class _Fork(Generic[Key]):
    def __init__(self, task: Task[Key]) -> None:
        self.key = task.key
        self.end_s = time.monotonic() + task.limit_s
        self._process = _FORK.Process(target=_lead, args=(task.run,))
        self._process.start()
        self.sentinel = self._process.sentinel

    def over(self) -> bool:
        return self._process.exitcode is not None or time.monotonic() >= self.end_s

    def exit_code(self) -> int | None:
        code = self._process.exitcode
        self.stop()
        return code

    def stop(self) -> None:
        """End the process and whatever it started."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def _lead(run: Callable[[], None]) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run()
