"""What the queue adds to the model server's answers: failures with their Reason, and fields that say where the time went."""

from __future__ import annotations

import json
from typing import Final

from knative_sponge.codec.base import Answer
from knative_sponge.errors import Reason

EXPLANATIONS: Final = {
    Reason.EXPIRED: "the deadline had passed on arrival or while waiting",
    Reason.HOPELESS: "the deadline cannot be met, not even with all the cores within reach",
    Reason.EVICTED: "late or less urgent than others, it made room in a full queue",
    Reason.QUEUE_FULL: "the queue is full",
    Reason.TIMEOUT: "the model server did not answer in time",
    Reason.DRAINING: "the queue-proxy is shutting down",
}
"""The text of the queue's own refusals."""


def failure(reason: Reason, message: str, *, status: int | None = None, retry_after_s: int | None = None) -> Answer:
    """A complete answer for a request that failed: JSON `{"error", "reason"}` and header `sponge-reason`.

    retry_after_s: when the client may try again, whole seconds; None says nothing about it.
    """
    body = json.dumps({"error": message, "reason": reason.value}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"sponge-reason", reason.value.encode()),
    ]
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    return Answer(reason.status if status is None else status, headers, body)


def with_timing(answer: Answer, slack_s: float, rows: int, queue_s: float, infer_s: float) -> Answer:
    """The answer with `sponge-slack-ms` (left at the answer), `sponge-batch` (rows of its call) and `server-timing`."""
    headers = [
        *answer.headers,
        (b"sponge-slack-ms", b"%d" % round(slack_s * 1000)),
        (b"sponge-batch", b"%d" % rows),
        (b"server-timing", b"queue;dur=%.1f, infer;dur=%.1f" % (queue_s * 1000, infer_s * 1000)),
    ]
    if answer.status >= 500:
        headers.append((b"sponge-reason", Reason.UPSTREAM_ERROR.value.encode()))
    return Answer(answer.status, headers, answer.body)
