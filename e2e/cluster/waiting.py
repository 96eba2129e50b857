"""Waits for a condition, with a deadline and a message that helps. No wait elsewhere in this package lacks either."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from e2e.cluster.provider import ClusterError

_LINES = 15


def wait_for(
    what: str,
    condition: Callable[[], bool],
    *,
    timeout_s: float,
    logs: Iterable[Path] = (),
    alive: Callable[[], None] = lambda: None,
    every_s: float = 0.1,
) -> None:
    """Return once `condition` holds; ClusterError in it means not yet.

    alive raises ClusterError when waiting has become pointless. logs: files whose last lines go into the message.
    Raises ClusterError after `timeout_s`.
    """
    end_s = time.monotonic() + timeout_s
    last = ""
    while True:
        alive()
        try:
            if condition():
                return
        except ClusterError as error:
            last = str(error)
        if time.monotonic() >= end_s:
            raise ClusterError(f"waited {timeout_s:g} s in vain for {what}\n{last}{tails(logs)}")
        time.sleep(every_s)


def tails(logs: Iterable[Path]) -> str:
    """The last lines of each file, for a message."""
    text = ""
    for log in logs:
        if log.exists():
            lines = log.read_text(errors="replace").splitlines()[-_LINES:]
            text += f"\n--- {log.name}\n" + "\n".join(line[:400] for line in lines)
    return text
