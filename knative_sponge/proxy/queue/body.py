"""Reads a request's whole body into memory, up to a limit; only requests for the queue are read like this."""

from __future__ import annotations

from typing import Final

from knative_sponge.asgi import Receive, Scope
from knative_sponge.errors import BadRequest

_MOST_DIGITS: Final = 18
"""Of a length that is read: Python's time for an integer grows with the square of its digits."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when the client went away. Raises BadRequest(413) above the limit."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:_MOST_DIGITS]) > limit:
            raise BadRequest(f"the body has {value[:_MOST_DIGITS].decode()} bytes; {_allowed(limit)}", status=413)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BadRequest(f"the body is larger; {_allowed(limit)}", status=413)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _allowed(limit: int) -> str:
    return f"max-body allows {limit}"
