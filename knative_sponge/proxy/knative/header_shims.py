"""Rewrites a request's header fields once, before anyone else reads them; see `headers` for what is rewritten."""

from __future__ import annotations

from knative_sponge.asgi import ASGIApp, Receive, Scope, Send
from knative_sponge.proxy.http.headers import inbound


class HeaderShims:
    """ASGI layer: the fields of every request as the model server shall see them.

    default_host: Host of a request that names none.
    """

    def __init__(self, app: ASGIApp, default_host: bytes) -> None:
        self._app = app
        self._default_host = default_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["client"]
        scope["headers"] = inbound(scope["headers"], client[0].encode() if client else b"", self._default_host)
        await self._app(scope, receive, send)
