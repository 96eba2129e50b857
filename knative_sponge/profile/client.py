"""The HTTP client of the load, in a process of its own: it must not share an event loop with the service.

`python -m knative_sponge.profile.client` reads a Job from standard input. To standard output it writes the moment it
started, then every outcome, one JSON value a line. It plans nothing and judges nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

from knative_sponge.profile.load import WRONG_ANSWER, Body, Outcome, Planned, Reply, offer


@dataclass(frozen=True, slots=True)
class Job:
    """One load: the planned requests, their bodies, and the URL that they go to.

    url: complete, path included. patience_s: see `load.offer`.
    """

    url: str
    bodies: tuple[Body, ...]
    planned: tuple[Planned, ...]
    patience_s: float = 5.0

    def __post_init__(self) -> None:
        if any(request.body >= len(self.bodies) for request in self.planned):
            raise ValueError("a planned request names a body that is not there")


@dataclass(frozen=True, slots=True)
class Started:
    """The first line of output. monotonic_s: the system's monotonic clock at time 0 of the plan."""

    monotonic_s: float


class HttpClient:
    """Sends over kept-alive connections, one for each request under way. Satisfies `load.Client`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, bodies: tuple[Body, ...]) -> None:
        self._session = session
        self._url = url
        self._bodies = bodies

    async def send(self, body: int, headers: Mapping[str, str]) -> Reply:
        """See `load.Client.send`."""
        content = self._bodies[body]
        try:
            async with self._session.post(
                self._url, data=content.content, headers={**content.headers, **headers}
            ) as response:
                answer = await response.read()
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error
        batch = response.headers.get("sponge-batch", "")
        reason = response.headers.get("sponge-reason")
        if response.ok and content.contains not in answer:
            reason = WRONG_ANSWER
        return Reply(response.status, reason, int(batch) if batch.isdigit() else None)


async def run(job: Job) -> None:
    """Carry out a job and report on standard output."""

    def report(line: Started | Outcome) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
    ) as session:
        client = HttpClient(session, job.url, job.bodies)
        report(Started(time.monotonic()))
        await offer(job.planned, client, report, patience_s=job.patience_s)


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
