"""Knative's eventing as far as a subscriber can tell (docs/knative-contract.md §7): one delivery, its attempts, reply, end.

Written from the contract and the rules of broker-filter and channel dispatcher, on a real HTTP client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, from_structured_event

NOT_DELIVERED = 502
"""What the filter makes of an answer that is neither empty nor an event."""


@dataclass
class Delivery:
    """What became of one event: attempts are the statuses the dispatcher saw; -1 is no answer."""

    attempts: list[int] = field(default_factory=list)
    replies: list[BaseCloudEvent] = field(default_factory=list)
    dead: bool = False
    error: bytes = b""
    """Body of the last failed answer: what the dead letter's `knativeerrordata` would hold."""

    @property
    def handled(self) -> bool:
        return not self.dead and 200 <= self.attempts[-1] < 300


def is_retried(status: int) -> bool:
    """Whether the dispatcher sends the event again."""
    return status in (-1, 404, 408, 409, 429) or status >= 500


@dataclass
class Broker:
    """Delivers events to one subscriber. retry, backoff_s: of an exponential delivery spec; there is a dead letter sink."""

    session: aiohttp.ClientSession
    url: str
    retry: int = 10
    backoff_s: float = 0.02

    async def deliver(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """One event until it is handled or dead."""
        delivery = Delivery()
        for attempt in range(self.retry + 1):
            status = await self._attempt(headers, body, delivery)
            delivery.attempts.append(status)
            if 200 <= status < 300:
                return delivery
            if not is_retried(status):
                break
            await asyncio.sleep(self.backoff_s * 2**attempt)
        delivery.dead = True
        return delivery

    async def _attempt(self, headers: Mapping[str, str], body: bytes, delivery: Delivery) -> int:
        sent = {**headers, "prefer": "reply", "kn-namespace": "ns"}
        try:
            async with self.session.post(self.url, data=body, headers=sent) as answer:
                content = await answer.read()
                if not 200 <= answer.status < 300:
                    delivery.error = content
                    return answer.status
                return self._filtered(answer.status, dict(answer.headers), content, delivery)
        except aiohttp.ClientError:
            return -1

    def _filtered(self, status: int, headers: dict[str, str], content: bytes, delivery: Delivery) -> int:
        fields = {name.lower(): value for name, value in headers.items()}
        message = HTTPMessage(fields, content)
        if fields.get("content-type", "").partition(";")[0].strip().lower() == "application/cloudevents+json":
            delivery.replies.append(from_structured_event(message))
        elif "ce-specversion" in fields:
            delivery.replies.append(from_binary_event(message))
        elif content:
            return NOT_DELIVERED
        return status
