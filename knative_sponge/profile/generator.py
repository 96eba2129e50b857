"""Runs the load's client process and reads its outcomes. It sends no request itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from knative_sponge.errors import SpongeError
from knative_sponge.profile.client import Job, Started
from knative_sponge.profile.load import Outcome


@dataclass(frozen=True, slots=True)
class Load:
    """A load that was carried out.

    start_s: monotonic time of the plan's time 0. outcomes: in the order in which they came.
    """

    start_s: float
    outcomes: tuple[Outcome, ...]


async def run_load(job: Job, heard: Callable[[Outcome], None] = lambda _: None) -> Load:
    """Carry out `job` in a process of its own; cancelling ends the process. heard: is given each outcome as it comes.

    Raises SpongeError, with the end of the process's error output, when the process ends before its job is done.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "knative_sponge.profile.client",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    words = asyncio.create_task(process.stderr.read())
    try:
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        first = await process.stdout.readline()
        outcomes = []
        while line := await process.stdout.readline():
            outcomes.append(msgspec.json.decode(line, type=Outcome))
            heard(outcomes[-1])
        if await process.wait() != 0 or len(outcomes) != len(job.planned):
            raise SpongeError("the load's client failed: " + (await words).decode(errors="replace").strip()[-500:])
        return Load(msgspec.json.decode(first, type=Started).monotonic_s, tuple(outcomes))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await words
