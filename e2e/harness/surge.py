"""Open-loop inference load through the ingress, and what became of it. Plans and counts; judges nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from e2e.harness.client import Client
from knative_sponge.profile.client import Job
from knative_sponge.profile.generator import Load, run_load
from knative_sponge.profile.load import WRONG_ANSWER, Body, Outcome, Planned

PATH = "/v2/models/affine/infer"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the load: `rate` requests a second, evenly spaced, for `seconds`."""

    seconds: float
    rate: float


def plan(parts: Iterable[Part], slo_s: float) -> tuple[Planned, ...]:
    """One part after the other. Requests are sent as they reach the service: no network in between."""
    planned: list[Planned] = []
    start_s = 0.0
    for part in parts:
        count = round(part.seconds * part.rate)
        planned += [Planned(start_s + number / part.rate, 0.0, slo_s, number % _BODIES) for number in range(count)]
        start_s += part.seconds
    return tuple(planned)


_BODIES = 16
_LEAST = 100
"""Different inputs whose answers have three digits, so that one that went to the wrong client shows in its bytes."""


def start(pool: ThreadPoolExecutor, client: Client, parts: Sequence[Part], slo_s: float) -> Future[Load]:
    """Begin the load in a process of its own; the future is its end.

    The model is `e2e.apps.affine` as it comes; each answer is compared with what it must be.
    """
    url = f"http://{client.address}{PATH}"
    bodies = tuple(
        Body(
            json.dumps(_tensor(number)).encode(),
            {"Content-Type": "application/json", "Host": client.host},
            contains=f"{2 * (_LEAST + number) + 1}.0]".encode(),
        )
        for number in range(_BODIES)
    )
    job = Job(url, bodies, plan(parts, slo_s))
    return pool.submit(lambda: asyncio.run(run_load(job)))


def missed(outcomes: Iterable[Outcome]) -> int:
    """Requests whose answer did not come in time, whatever the reason."""
    return sum(not outcome.met for outcome in outcomes)


def unanswered(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Requests that got no answer at all: never the product's to lose."""
    return [outcome for outcome in outcomes if outcome.status == 0]


def swapped(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Requests that got the answer to something else."""
    return [outcome for outcome in outcomes if outcome.reason == WRONG_ANSWER]


def _tensor(number: int) -> dict[str, object]:
    return {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [float(_LEAST + number)]}]}
