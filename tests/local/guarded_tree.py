"""A guarded process tree for the length of a block, its output kept in its tail."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from knative_sponge.local.cpu.control import Entry
from knative_sponge.local.process import ChildTree


@asynccontextmanager
async def run_guarded(command: Sequence[str], entry: Entry | None = None) -> AsyncIterator[ChildTree]:
    """Started at the start, killed and waited for at the end."""
    tree = await ChildTree.start(command, env=os.environ, sink=lambda _: None, entry=entry)
    try:
        yield tree
    finally:
        tree.kill()
        await tree.wait()
