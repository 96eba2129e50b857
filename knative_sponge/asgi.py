"""The types of ASGI 3, as its specification has them (asgiref.readthedocs.io); no framework is needed to speak it.

Imports nothing of this package and no library: rooms that may not know starlette or uvicorn use these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
"""One connection or request; read its `type` first."""
Message = MutableMapping[str, Any]
"""One event, either way; read its `type` first."""
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
