"""The types of ASGI 3, as its specification has them (asgiref.readthedocs.io); no framework is needed to speak it.

Imports nothing of this package and no library: rooms that may not know starlette or uvicorn use these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
"""One connection or request; read its `type` first."""
Message = MutableMapping[str, Any]
"""One event, either way; read its `type` first."""
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_OWN: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""Not all of 127.0.0.0/8: sidecars of a mesh hand strangers' connections on from other addresses of it, such as 127.0.0.6."""


def from_loopback(scope: Scope) -> bool:
    """Did the connection begin and end on the loopback address? Nothing from outside arrives with it."""
    client, server = scope.get("client"), scope.get("server")
    return client is not None and client[0] in _OWN and server is not None and server[0] in _OWN
