"""Deadline batching of inference requests: the shell around `core/batching/batcher.py`.

Decides nothing; it parses, waits and delivers.

One request's way: head → body → codec.parse → deadline → Arrived → (Dispatch: merge → upstream → split) → answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.byte_budget import ByteBudget, Claim
from knative_sponge.codec.base import Answer, Call, Codec, Part, RequestHead
from knative_sponge.codec.cost import merge_s, parse_s, split_s
from knative_sponge.core.batching.deadline import ClientBudget, Deadline, claims_of, deadline_of
from knative_sponge.core.batching.events import (
    Abandon,
    Arrived,
    BatchDone,
    BatcherCommand,
    BatcherEvent,
    BatchFailed,
    BatchRefused,
    Cancelled,
    Dispatch,
    Refuse,
    Tick,
    WakeAt,
)
from knative_sponge.core.batching.work import Work
from knative_sponge.errors import BadRequest, Draining, QueueFull, Reason, RequestFailed, UpstreamError
from knative_sponge.proxy.http.failure_log import note_failure
from knative_sponge.proxy.http.plain_answers import deliver
from knative_sponge.proxy.queue.answers import failure, with_timing
from knative_sponge.proxy.queue.body import read_body
from knative_sponge.proxy.queue.cloudevent_replies import check_reply_possible, refusal, reply
from knative_sponge.proxy.queue.lanes import Lanes
from knative_sponge.proxy.queue.metrics import Metrics
from knative_sponge.proxy.queue.worker import LONG_S, Worker

logger = logging.getLogger(__name__)
_LEAST_S = 1e-6
"""The shortest duration of a measured call: a coarse clock may show none."""
_TIMER_SLACK_S = 0.0005
"""Added to each timer: the loop counts whole milliseconds and would fire up to half of one too early."""


class Machine(Protocol):
    """The batcher, or the baseline it is compared with."""

    def handle(self, event: BatcherEvent, now: float) -> list[BatcherCommand]:
        """See `core.batching.batcher.Batcher.handle`."""
        ...


class Upstream(Protocol):
    """Where batches go."""

    async def fetch(self, call: Call, room: Claim | None = None) -> Answer:
        """The complete answer to one call, which `room` grows with.

        Raises UpstreamRefused, UpstreamBroken, QueueFull; cancelling breaks the call off.
        """
        ...


@dataclass(frozen=True, slots=True)
class RequestRules:
    """What holds for every request, whatever its headers say.

    slo_s, timeout_s, max_network_share, client_budget: see `core.batching.deadline.deadline_of`.
    grace_s: how long after its deadline the model server's answer still counts; then the client gets a 504.
    serve_late: whether late requests are served until the revision timeout.
    max_body: bytes of a request body.
    max_rows: rows of a request.
    most_rows: a call with a request of more rows is not learned from: it says nothing of calls that are planned.
    """

    slo_s: float
    timeout_s: float
    max_network_share: float = 0.9
    client_budget: ClientBudget = ClientBudget.SHORTER
    grace_s: float = 0.5
    serve_late: bool = False
    max_body: int = 32 * 2**20
    max_rows: int = 131072
    most_rows: int = 1024


@dataclass(slots=True)
class _Waiting:
    """A request between its arrival and its answer. claim: what it holds; a batch that carries it is an owner too."""

    part: Part
    deadline: Deadline
    arrived_s: float
    answer: asyncio.Future[Answer]
    claim: Claim

    def settle(self, answer: Answer) -> None:
        """It is answered: from here on it holds the answer, and no longer the request. Raises QueueFull for no room."""
        if not self.claim.shared:
            self.claim.resize(len(answer.body), urgent=True)
        self.answer.set_result(answer)


class InferenceEndpoint:
    """ASGI endpoint for the requests that the codec wants. One event loop, no locks. A client that leaves cancels its request.

    source: of the reply events made here.
    concurrency_slot: entered for each upstream call (`Breaker`).
    on_change: called when the queue or the batches changed.
    on_sample: called with rows and seconds of each successful upstream call.
    size_confirmed: whether the size that is planned with is in force.
    budget: what requests are held in, from before their body is read until their answer is taken; None is one of its own.
    """

    def __init__(
        self,
        codec: Codec,
        machine: Machine,
        upstream: Upstream,
        rules: RequestRules,
        metrics: Metrics,
        source: str = "/",
        *,
        concurrency_slot: contextlib.AbstractAsyncContextManager[None] | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_sample: Callable[[int, float], None] = lambda _rows, _seconds: None,
        size_confirmed: Callable[[], bool] = lambda: True,
        budget: ByteBudget | None = None,
    ) -> None:
        self._codec = codec
        self._machine = machine
        self._upstream = upstream
        self._rules = rules
        self._metrics = metrics
        self._source = source
        self._concurrency_slot = contextlib.nullcontext() if concurrency_slot is None else concurrency_slot
        self._on_change = on_change
        self._on_sample = on_sample
        self._size_confirmed = size_confirmed
        self._budget = ByteBudget() if budget is None else budget
        self._keys = itertools.count(1)
        self._lanes = Lanes()
        self._waiting: dict[int, _Waiting] = {}
        self._batches: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._worker = Worker()

    def wants(self, scope: Scope) -> bool:
        """Whether this request is batched; the others are relayed."""
        wanted = self._codec.wants(_head(scope))
        self._metrics.passed_through += not wanted
        return wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one inference request."""
        claim = self._budget.claim()
        try:
            answer = await self._serve(scope, receive, claim)
            if answer is not None:
                await deliver(answer, send)
        finally:
            claim.release()

    async def _serve(self, scope: Scope, receive: Receive, claim: Claim) -> Answer | None:
        """The answer to one request, which `claim` then holds; None when its client is gone."""
        now, wall_now_s = time.monotonic(), time.time()
        head = _head(scope)
        try:
            body = await read_body(
                scope,
                receive,
                self._rules.max_body,
                claim,
                self._budget,
                lambda: self._body_time_s(head, now, wall_now_s),
            )
            if body is None:
                return None
            part = await self._parse(head, body)
            check_reply_possible(part, self._source)
        except (BadRequest, Draining) as error:
            self._metrics.refused(error.reason)
            return failure(error.reason, str(error), status=error.status)
        except QueueFull as error:
            self._metrics.refused(Reason.QUEUE_FULL)
            return failure(error.reason, str(error), retry_after_s=error.retry_after_s)
        except TimeoutError:
            self._metrics.slow_client()
            return failure(Reason.EXPIRED, "the request's body was not complete by its deadline")
        del body
        deadline = self._deadline(head, now, wall_now_s, part)
        self._metrics.admitted(deadline)
        return await self._answer(part, deadline, now, claim)

    def _body_time_s(self, head: RequestHead, now: float, wall_now_s: float) -> float:
        """How long a body may take: to the deadline, where the head tells it and late requests are not served."""
        structured = any(name == b"content-type" and b"cloudevents" in value.lower() for name, value in head.headers)
        if self._rules.serve_late or structured:
            return self._rules.timeout_s
        return self._deadline(head, now, wall_now_s).at_s - now

    def _deadline(self, head: RequestHead, now: float, wall_now_s: float, part: Part | None = None) -> Deadline:
        """part: None before the body is here, which may be an event with claims of its own."""
        return deadline_of(
            claims_of(head.headers, None if part is None or part.event is None else part.event.attributes),
            now=now,
            wall_now_s=wall_now_s,
            slo_s=self._rules.slo_s,
            timeout_s=self._rules.timeout_s,
            max_network_share=self._rules.max_network_share,
            client_budget=self._rules.client_budget,
        )

    async def close(self) -> None:
        """Break off what is still running; each client is told."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for key in self._waiting:
            self._fail(key, Reason.DRAINING)
        tasks = list(self._batches.values())
        for task in tasks:
            task.cancel()
        self._worker.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _parse(self, head: RequestHead, body: bytes) -> Part:
        """The request, understood. Raises BadRequest, or Draining when the proxy ends meanwhile."""
        if parse_s(head, body) <= LONG_S:
            part = self._codec.parse(head, body)
        else:
            part = await self._worker.run(self._codec.parse, head, body)
        if part.rows > self._rules.max_rows:
            raise BadRequest(f"the request has {part.rows} rows; max-rows allows {self._rules.max_rows}", status=413)
        return part

    async def _merge(self, parts: Sequence[Part]) -> Call:
        if merge_s(parts) <= LONG_S:
            return self._codec.merge(parts)
        return await self._worker.run(self._codec.merge, parts)

    async def _answer(self, part: Part, deadline: Deadline, arrived_s: float, claim: Claim) -> Answer:
        loop = asyncio.get_running_loop()
        key = next(self._keys)
        waiting = _Waiting(part, deadline, arrived_s, loop.create_future(), claim)
        self._waiting[key] = waiting
        latest_s = arrived_s + self._rules.timeout_s
        lane = self._lanes.enter(part.group)
        give_up_s = latest_s if self._rules.serve_late else min(deadline.at_s + self._rules.grace_s, latest_s)
        work = Work(
            key,
            deadline.at_s,
            rows=part.rows,
            group=lane,
            arrived_s=arrived_s,
            give_up_s=max(give_up_s, deadline.at_s),
            sizing_deadline_s=deadline.sizing_at_s,
        )
        try:
            self._tell(Arrived(work))
            return await waiting.answer
        finally:
            self._waiting.pop(key, None)
            self._lanes.leave(part.group)
            if waiting.answer.cancelled():  # the client is gone: no row of it need be computed
                self._metrics.gone()
                self._tell(Cancelled(key))

    def _tell(self, event: BatcherEvent) -> None:
        self.tell(event)
        self._on_change()

    def tell(self, event: BatcherEvent) -> None:
        """Give the machine an event and carry out its commands. The only event from outside is CoresChanged."""
        self._execute(self._machine.handle(event, time.monotonic()))

    def _execute(self, commands: Sequence[BatcherCommand]) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        for command in commands:
            match command:
                case Dispatch(batch, works):
                    self._start(batch, works)
                case Refuse(work, reason):
                    self._fail(work.key, reason)
                case Abandon(batch):
                    self._batches[batch].cancel()
                case WakeAt(at_s):
                    if self._timer is not None:
                        self._timer.cancel()
                    self._timer = None
                    if at_s is not None:
                        delay_s = max(at_s - time.monotonic(), 0.0) + _TIMER_SLACK_S
                        self._timer = loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._tell(Tick())

    def _fail(self, key: int, reason: Reason, message: str | None = None, status: int | None = None) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting.answer.done():
            self._metrics.refused(reason)
            note_failure(reason, message)
            left_s = waiting.deadline.own_at_s - time.monotonic()
            answer = refusal(waiting.part.event, reason, left_s, message, status)
            with contextlib.suppress(QueueFull):  # so short an answer needs no room
                waiting.settle(answer)
                return
            waiting.answer.set_result(answer)

    def _start(self, batch: int, works: tuple[Work, ...]) -> None:
        task = asyncio.get_running_loop().create_task(self._call(batch, works))
        self._batches[batch] = task
        # A callback, not a wrapper coroutine: a task that is cancelled before its first step runs no code of its own.
        task.add_done_callback(lambda done: self._ended(batch, works, done))

    def _ended(self, batch: int, works: tuple[Work, ...], task: asyncio.Task[None]) -> None:
        """Free the slot of a batch that ended without an answer, and tell its members why."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RequestFailed):
            for work in works:
                self._fail(work.key, error.reason, str(error), status=error.status)
        elif error is not None:  # also after the slot was freed: whoever has no answer yet gets this one
            logger.error("batch %d failed inside the proxy", batch, exc_info=error)
            for work in works:
                self._fail(work.key, Reason.UPSTREAM_ERROR, "the queue-proxy failed to process the batch")
        if self._batches.pop(batch, None) is not None:
            self._tell(BatchFailed(batch, broken=isinstance(error, RequestFailed)))

    async def _call(self, batch: int, works: tuple[Work, ...]) -> None:
        async with self._concurrency_slot:
            members = [(work, self._waiting[work.key]) for work in works if work.key in self._waiting]
            if not members:  # all of them gave up before a slot was free
                return
            parts = [waiting.part for _, waiting in members]
            room = self._budget.claim()
            claims = [waiting.claim.keep() for _, waiting in members]
            try:
                call = await self._merge(parts)
                confirmed_before = self._size_confirmed()
                started_s = time.monotonic()
                answer = await self._upstream.fetch(call, room)
                infer_s = max(time.monotonic() - started_s, _LEAST_S)
            finally:
                room.release()
                for claim in claims:
                    claim.release()
        self._batches.pop(batch, None)
        rows = sum(part.rows for part in parts)
        if 400 <= answer.status < 500 and len(parts) > 1:
            self._tell(BatchRefused(batch))
            return
        good = 200 <= answer.status < 300
        exact = good and all(part.rows <= self._rules.most_rows for part in parts)
        # The slot is free: the next batch goes out before this one's answers are cut up.
        self._tell(BatchDone(batch, infer_s, sample=exact and confirmed_before and self._size_confirmed()))
        self._metrics.batch(rows, infer_s, ok=good)
        if exact:
            self._on_sample(rows, infer_s)
        try:
            answers = await self._shares(parts, answer)
        except RequestFailed as error:
            for work, _ in members:
                self._fail(work.key, error.reason, str(error), status=error.status)
            return
        now = time.monotonic()
        for (work, waiting), share in zip(members, answers, strict=True):
            if not waiting.answer.done():
                own = reply(waiting.part, share, self._source, time.time())
                slack_s = waiting.deadline.at_s - now
                try:
                    waiting.settle(with_timing(own, slack_s, rows, started_s - waiting.arrived_s, infer_s))
                except QueueFull as error:
                    self._fail(work.key, error.reason, str(error))
                else:
                    self._metrics.answered(own.status, slack_s, started_s - waiting.arrived_s, infer_s)

    async def _shares(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """Each member's own answer. The text of a failed merged call is nobody's own: it may speak of other members."""
        if len(parts) == 1:
            return [answer]
        if 200 <= answer.status < 300:
            if split_s(parts, answer) <= LONG_S:
                return self._codec.split(parts, answer)
            return await self._worker.run(self._codec.split, parts, answer)
        raise UpstreamError(
            f"the model server answered {answer.status} to a batch of {len(parts)} requests",
            status=answer.status if answer.status >= 500 else None,
        )


def _head(scope: Scope) -> RequestHead:
    return RequestHead(scope["method"], scope["sponge.target"], scope["headers"])
