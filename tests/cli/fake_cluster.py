"""A cluster as `sponge top` and `sponge explain` meet it: a kubeconfig, a Lease, and leaders behind forwarded ports.

The ports are forwarded as container runtimes do it (containerd's `portforward/websocket.go`), to real boards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from pathlib import Path

from aiohttp import WSMsgType, web
from starlette.applications import Starlette

from knative_sponge.controller.kube.resource import LEASES
from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.rows import Overview
from knative_sponge.listener import Listener
from tests.controller.apiserver import FakeApi

FORWARDED = "/api/v1/namespaces/knative-sponge/pods/{}/portforward"
_PIECE = 1000


class _Leader(Board):
    """A board that shows an overview as it is."""

    def __init__(self, overview: Overview | None) -> None:
        super().__init__()
        self._overview = overview

    def as_json(self) -> bytes | None:
        return None if self._overview is None else self._overview.to_json()


class FakeCluster(FakeApi):
    """pods: what each replica answers; an absent one does not exist, and one that has None does not lead. asked: paths, in
    order. refused: status of every forwarding. deaf: nobody listens on the ports of the pods."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, Overview | None] = {}
        self.asked: list[str] = []
        self.refused = 0
        self.deaf = False

    async def __aenter__(self) -> FakeCluster:
        await super().__aenter__()
        return self

    def led_by(self, pod: str) -> None:
        """The Lease names this replica."""
        metadata = {"name": "autoscaler", "namespace": "knative-sponge"}
        self.put(LEASES, {"metadata": metadata, "spec": {"holderIdentity": pod}})

    def kubeconfig(self, folder: Path, context: str = "here") -> str:
        """A file that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
            "current-context": context,
        }
        (folder / "config").write_text(json.dumps(config))
        return str(folder / "config")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        for pod, overview in self.pods.items():
            if request.path == FORWARDED.format(pod):
                if self.refused:
                    return web.json_response({"message": "no"}, status=self.refused)
                return await self._forward(request, overview)
        return await super()._answer(request)

    async def _forward(self, request: web.Request, overview: Overview | None) -> web.WebSocketResponse:
        assert request.query["ports"] == "9090"
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        assert socket.ws_protocol == "v4.channel.k8s.io"
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + struct.pack("<H", 9090))
        if self.deaf:
            await socket.send_bytes(b"\x01error forwarding port 9090: connection refused")
            await socket.close()
            return socket
        listener = Listener(Starlette(routes=_Leader(overview).routes), "127.0.0.1", 0)
        await listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)

        async def back() -> None:
            while data := await reader.read(_PIECE):
                await socket.send_bytes(b"\x00" + data)
            await socket.close()

        answering = asyncio.create_task(back())
        with contextlib.suppress(ConnectionError):
            async for message in socket:
                assert message.type is WSMsgType.BINARY
                assert message.data[0] == 0
                writer.write(message.data[1:])
        answering.cancel()
        writer.close()
        await listener.stop()
        return socket
