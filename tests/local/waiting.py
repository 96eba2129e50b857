"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_S = 20.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once it holds; fail with `what` after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


async def until(condition: Callable[[], bool], what: str) -> None:
    """As `wait_until`, inside a loop."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process can still run: a zombie cannot."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False
