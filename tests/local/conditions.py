"""Waiting for a condition with a deadline, and what the conditions are about: processes and writable hierarchies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from knative_sponge.local.cpu.mounts import Place, find_place

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


def may_make_groups(place: Place | None) -> bool:
    """Whether a cgroup can be made below our own, tried out."""
    if place is None:
        return False
    trial = place.own / f"sponge-test-trial-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


V1_CPU = find_place("cpu")
HAVE_V1 = V1_CPU is not None and V1_CPU.version == 1 and may_make_groups(V1_CPU)
V2_ANY = find_place("no controller has this name")
"""The v2 hierarchy, whether it holds the cpu controller or not."""
HAVE_V2 = V2_ANY is not None and V2_ANY.version == 2 and may_make_groups(V2_ANY)
