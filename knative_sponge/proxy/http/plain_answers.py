"""Answers of the proxy's own: the exact texts Knative's clients know, and one for each Reason. Decides nothing.

Fields follow what Go's queue-proxy sends (docs/knative-contract.md §10, row 11).
"""

from __future__ import annotations

from knative_sponge.asgi import Send
from knative_sponge.codec.base import Answer
from knative_sponge.errors import QueueFull, Reason, RequestFailed

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


def text(status: int, body: bytes, *more: tuple[bytes, bytes]) -> Answer:
    """A complete text answer with the given fields besides its type and length."""
    return Answer(status, (_TEXT, (b"content-length", b"%d" % len(body)), *more), body)


def error(status: int, message: str, *more: tuple[bytes, bytes]) -> Answer:
    """An error text with its line end, marked so that no browser guesses another type."""
    return text(status, message.encode() + b"\n", _NOSNIFF, *more)


def refusal(failure: RequestFailed) -> Answer:
    """What a client is told when its request failed for one of our reasons."""
    reason = (b"sponge-reason", failure.reason.value.encode())
    if failure.reason is Reason.TIMEOUT:
        return text(failure.status, str(failure).encode(), reason)
    if isinstance(failure, QueueFull) and failure.retry_after_s is not None:
        return error(failure.status, str(failure), reason, (b"retry-after", b"%d" % failure.retry_after_s))
    return error(failure.status, str(failure), reason)


async def deliver(answer: Answer, send: Send) -> None:
    """Send a complete answer."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
