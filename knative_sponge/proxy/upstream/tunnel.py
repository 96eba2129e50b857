"""A connection that has switched protocols (WebSocket and others), as bytes both ways; understands none of them."""

from __future__ import annotations

import asyncio

from knative_sponge.asgi import Receive, Send
from knative_sponge.errors import UpstreamBroken
from knative_sponge.proxy.http.headers import end_to_end, tokens
from knative_sponge.proxy.upstream.connection import Connection


async def splice(connection: Connection, offer: bytes, receive: Receive, send: Send) -> None:
    """Pass the 101 (to CONNECT: the 2xx) on, then bytes until both sides have ended, or one is lost.

    Either side may end its own direction first: the other one is told and may go on. Who sends faster than the other
    reads is read no further. Raises UpstreamBroken when the model server breaks off, or switches to something that was
    not offered. Cancelling it leaves the connection to be cut.
    """
    headers = end_to_end(connection.headers)
    if connection.status == 101:
        chosen = [value for name, value in connection.headers if name == b"upgrade"]
        if not tokens(b",".join(chosen)) <= tokens(offer):
            raise UpstreamBroken("the model server switched to a protocol that was not offered")
        headers += [(b"connection", b"Upgrade"), (b"upgrade", b", ".join(chosen))]
    await send({"type": "http.response.start", "status": connection.status, "headers": headers})
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_up(connection, receive))]
    try:
        while not connection.complete:
            await connection.more()
            body = connection.take()
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": connection.take(), "more_body": False})
        tasks.append(loop.create_task(connection.over()))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _up(connection: Connection, receive: Receive) -> None:
    """The client's bytes to the model server, then the end of them."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        connection.write(message["body"])
        if not message["more_body"]:
            connection.end()
            return
        await connection.gate.passed()
