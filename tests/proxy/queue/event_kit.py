"""Events sent to an inference endpoint on a made-up model server, and replies as the CloudEvents SDK reads them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event

from knative_sponge.core.batching.defer import DeferRules
from tests.proxy.queue.inference_kit import PREDICT, Kit, Reply

NEVER = DeferRules(mode="never")
EVENT = {"ce_specversion": "1.0", "ce_source": "/camera", "ce_type": "com.example.frame"}


def in_s(seconds: float) -> str:
    """A timestamp so far from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def send(
    kit: Kit, number: int | str, *, path: bytes = PREDICT, body: bytes | None = None, **more: str
) -> asyncio.Task[Reply]:
    """An event in binary mode whose data is a V1 request of the one instance."""
    data = json.dumps({"instances": [number]}).encode() if body is None else body
    return kit.post(data, path, **{**EVENT, "ce_id": f"e-{number}", **more})


def structured(kit: Kit, data: Any, path: bytes = PREDICT, **more: Any) -> asyncio.Task[Reply]:
    """An event in structured mode."""
    event = {"specversion": "1.0", "id": "s", "source": "/camera", "type": "com.example.frame", **more, "data": data}
    return kit.post(json.dumps(event).encode(), path, content_type="application/cloudevents+json")


def event_of(reply: Reply) -> BaseCloudEvent:
    """The reply as the CloudEvents SDK reads it."""
    headers = {name.decode(): value.decode() for name, value in reply.headers.items()}
    return from_binary_event(HTTPMessage(headers, reply.body))
