"""An inference endpoint on a made-up model server, called as ASGI without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from knative_sponge.asgi import Message
from knative_sponge.byte_budget import Claim
from knative_sponge.codec.base import Answer, Call
from knative_sponge.codec.select import codec_for
from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.proxy.queue.endpoint import InferenceEndpoint, RequestRules
from knative_sponge.proxy.queue.metrics import Metrics

PREDICT = b"/v1/models/m:predict"


@dataclass
class Pending:
    """A call the model server has not answered yet."""

    call: Call
    answer: asyncio.Future[Answer]
    cancelled: bool = False

    @property
    def instances(self) -> list[Any]:
        found: list[Any] = json.loads(self.call.body)["instances"]
        return found

    def reply(self, status: int = 200, body: bytes | None = None) -> None:
        """Answer; by default each instance is sent back inside `{"of": …}`."""
        if body is None:
            body = json.dumps({"predictions": [{"of": one} for one in self.instances]}).encode()
        self.answer.set_result(Answer(status, [(b"content-type", b"application/json")], body))


class FakeServer:
    """The upstream port: each call waits until the test answers it, or at once with `respond`."""

    def __init__(self, respond: Callable[[Call], Answer] | None = None) -> None:
        self.calls: list[Pending] = []
        self.respond = respond
        self._arrived = asyncio.Event()

    async def fetch(self, call: Call, room: Claim | None = None) -> Answer:
        pending = Pending(call, asyncio.get_running_loop().create_future())
        self.calls.append(pending)
        self._arrived.set()
        if self.respond is not None:
            return self.respond(call)
        try:
            return await pending.answer
        except asyncio.CancelledError:
            pending.cancelled = True
            raise

    async def call(self, number: int) -> Pending:
        """The number-th call, once it has come."""
        async with asyncio.timeout(5):
            while len(self.calls) <= number:
                self._arrived.clear()
                await self._arrived.wait()
        return self.calls[number]


@dataclass
class Reply:
    """What a client got."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> bytes | None:
        return self.headers.get(b"sponge-reason")


@dataclass
class Kit:
    """One endpoint with everything around it. Predictions are exact: 10 ms and 1 ms a row on the one core there is."""

    server: FakeServer = field(default_factory=FakeServer)
    rules: BatchRules = field(default_factory=lambda: BatchRules(max_rows=8, defer=DeferRules(mode="never")))
    requests: RequestRules = field(default_factory=lambda: RequestRules(slo_s=30.0, timeout_s=60.0))
    protocol: str = "v1"

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.batcher = Batcher(self.rules, LatencyModel(LatencyParams(0.001, 0.0, 0.01, 0.0)), 1.0, 1.0)
        self.endpoint = InferenceEndpoint(
            codec_for(self.protocol), self.batcher, self.server, self.requests, self.metrics
        )

    def send(self, *instances: Any, path: bytes = PREDICT, **headers: str) -> asyncio.Task[Reply]:
        """A client's V1 request."""
        return self.post(json.dumps({"instances": list(instances)}).encode(), path, **headers)

    def post(self, body: bytes, path: bytes = PREDICT, **headers: str) -> asyncio.Task[Reply]:
        """A client's request with any body; `x_sponge_slo_ms="100"` becomes a header."""
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        pairs.append((b"content-type", b"application/json"))
        scope = {
            "type": "http",
            "method": "POST",
            "sponge.target": path,
            "headers": pairs,
            "sponge.arrived": lambda: True,
        }
        return asyncio.get_running_loop().create_task(self._run(scope, body))

    async def _run(self, scope: dict[str, Any], body: bytes) -> Reply:
        messages: list[Message] = []
        chunks = [body[:7], body[7:]]

        async def receive() -> Message:
            if chunks:
                return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            messages.append(message)

        await self.endpoint(scope, receive, send)
        start, *rest = messages
        return Reply(start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in rest))

    def counted(self, outcome: str) -> float:
        """How often the metrics saw this outcome."""
        value = self.metrics.registry.get_sample_value("sponge_requests_total", {"outcome": outcome})
        return 0.0 if value is None else value


async def behind_a_batch(kit: Kit) -> Pending:
    """Occupy the only slot, so that what follows waits and is merged."""
    kit.send("first")
    return await kit.server.call(0)
