"""Ends the whole process, at once and untidily, when work that must end in time does not."""

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
"""So many of the tasks that still run are named in the log."""
_TOLD_S: Final = 1.0
"""The end waits so long for the log. A task that hangs in a write to the log holds its lock."""


@contextmanager
def must_end(what: str, within_s: float, end: Callable[[int], object] = os._exit) -> Iterator[None]:
    """If the block does not end within `within_s` seconds, log `what` and the tasks that still run, and call `end` with 1.

    Where nothing can be logged, `end` is called a second later. A thread watches, so a blocked event loop is caught, too.
    Use it in a task.
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
        telling = threading.Thread(target=tell, name="watchdog log", daemon=True)
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
