"""The last resort against work that must have ended and has not: the whole process ends, at once and untidily."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_log: Final = logging.getLogger(__name__)

_NAMED: Final = 20
"""Tasks that are named in the log, of those that are left."""
_TOLD_S: Final = 1.0
"""For so long the end waits for the log. Whoever hangs may hang in a write to it, and then holds its lock."""


@contextmanager
def must_end(what: str, within_s: float, end: Callable[[int], object] = os._exit) -> Iterator[None]:
    """The block ends within so many seconds, or `end` is called with 1 after a line in the log that names `what` and the
    tasks that are left; without that line, a second later, when nothing can be logged.

    A thread watches, so that it holds for a loop that is blocked, too. Use it in a task.
    """
    loop = asyncio.get_running_loop()

    def tell() -> None:
        names = sorted(task.get_name() for task in asyncio.all_tasks(loop))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        _log.critical(
            "%s did not end within %.1f s: ending the process. Tasks left: %s%s",
            what, within_s, ", ".join(names[:_NAMED]), more,
        )  # fmt: skip

    def give_up() -> None:
        telling = threading.Thread(target=tell, name="last words", daemon=True)
        try:
            telling.start()
            telling.join(_TOLD_S)
        finally:
            end(1)

    watching = threading.Timer(within_s, give_up)
    watching.daemon = True
    watching.start()
    try:
        yield
    finally:
        watching.cancel()
