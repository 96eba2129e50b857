"""Open-loop load: every request leaves at its planned time, whatever became of earlier ones. No HTTP, no files.

A client sends at `at_s`, and its link delays the request by `network_s`. So the service is handed the request at their sum.
The client's view decides: a request is in time when an answer with a status of 2xx comes by `at_s + slo_s`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

SENT_HEADER: Final = "x-sponge-sent"
SLO_HEADER: Final = "x-sponge-slo-ms"


@dataclass(frozen=True, slots=True)
class Planned:
    """One request to come; seconds from the start of the load.

    at_s: when its client sends it. network_s: its time in the network. slo_s: time allowed from send to answer.
    body: index of its body among the load's bodies.
    """

    at_s: float
    network_s: float
    slo_s: float
    body: int = 0

    def __post_init__(self) -> None:
        if not (self.at_s >= 0 and self.network_s >= 0 and self.slo_s > 0 and self.body >= 0):
            raise ValueError(f"impossible request: {self}")

    @property
    def reaches_s(self) -> float:
        """When the service is handed the request."""
        return self.at_s + self.network_s

    @property
    def deadline_s(self) -> float:
        """The latest time at which its answer counts."""
        return self.at_s + self.slo_s


@dataclass(frozen=True, slots=True)
class Body:
    """One request body and the headers that belong to it. contains: bytes that a right answer to it contains."""

    content: bytes
    headers: dict[str, str]
    contains: bytes = b""


WRONG_ANSWER: Final = "wrong-answer"
"""The reason of a reply that belongs to another request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The service's answer. reason: why the model did not answer. batch: rows of the batch that the request was served in."""

    status: int
    reason: str | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request.

    lag_s: how late the generator itself handed it over.
    ended_s: when the client had its answer or stopped waiting; seconds from the start of the load.
    status: 0 when no answer came, because the connection broke or the client's patience ended.
    """

    planned: Planned
    lag_s: float
    ended_s: float
    status: int = 0
    reason: str | None = None
    batch: int | None = None

    @property
    def served(self) -> bool:
        """Whether the model's answer came, in time or not."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether an answer came that is not the model's."""
        return self.status != 0 and not self.served

    @property
    def met(self) -> bool:
        """Whether the model's answer came in time."""
        return self.served and self.slack_s >= 0 and self.reason != WRONG_ANSWER

    @property
    def slack_s(self) -> float:
        """Time from the end of the client's wait to the deadline; negative when late."""
        return self.planned.deadline_s - self.ended_s

    @property
    def latency_s(self) -> float:
        """From the client's send to the end of its wait, the network included."""
        return self.ended_s - self.planned.at_s


class Client(Protocol):
    """The way in which requests are sent."""

    async def send(self, body: int, headers: Mapping[str, str]) -> Reply:
        """Send one request, read the whole answer. Raises OSError when the connection breaks."""
        ...


async def offer(
    planned: Iterable[Planned],
    client: Client,
    heard: Callable[[Outcome], None],
    *,
    patience_s: float,
    clock: Callable[[], float] = time.monotonic,
    unix_clock: Callable[[], float] = time.time,
) -> None:
    """Carry out a plan; its time 0 is now. Returns when every request has its outcome.

    heard: is given each outcome as it comes. patience_s: a client hangs up so long after its deadline.
    clock: monotonic seconds. unix_clock: seconds since 1970, which clients write into their requests.
    """
    start_s, unix_start_s = clock(), unix_clock()

    async def one(request: Planned) -> None:
        lag_s = clock() - start_s - request.reaches_s
        headers = {
            SENT_HEADER: str(round((unix_start_s + request.at_s) * 1000)),
            SLO_HEADER: f"{request.slo_s * 1000:g}",
        }
        try:
            async with asyncio.timeout(start_s + request.deadline_s + patience_s - clock()):
                reply = await client.send(request.body, headers)
        except (OSError, TimeoutError):
            heard(Outcome(request, lag_s, clock() - start_s))
        else:
            heard(Outcome(request, lag_s, clock() - start_s, reply.status, reply.reason, reply.batch))

    async with asyncio.TaskGroup() as requests:
        for request in sorted(planned, key=lambda each: each.reaches_s):
            await asyncio.sleep(start_s + request.reaches_s - clock())
            requests.create_task(one(request))


def lag_s(outcomes: Sequence[Outcome], share: float) -> float:
    """The lateness of the generator itself that `share` of the requests did not exceed; 0 without requests."""
    lags = sorted(outcome.lag_s for outcome in outcomes)
    return max(lags[min(int(share * len(lags)), len(lags) - 1)], 0.0) if lags else 0.0
