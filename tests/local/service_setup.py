"""Options for a service before the fake proxy, and what the fake was told."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.local.options import LocalOptions
from knative_sponge.local.runner import LocalService
from knative_sponge.settings import ServingSettings
from tests.local.fake_cpu import FakeCpu
from tests.local.fake_proxy import Event
from tests.local.waiting import until

FAKE = (sys.executable, "-m", "tests.local.fake_proxy")
CODE = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
assert sys.argv[1] == os.environ["PORT"]
HTTPServer(("127.0.0.1", int(sys.argv[1])), BaseHTTPRequestHandler).serve_forever()
"""
SERVER = (sys.executable, "-c", CODE, "{port}")
SETTINGS = ServingSettings(slo_s=0.5, max_cores=1.0)


class ServiceSetup:
    """Options for a service before the fake proxy, and the fake's log."""

    def __init__(self, folder: Path, cpu: FakeCpu | None) -> None:
        self.log_file = folder / "log"
        self.log_file.touch()
        self.cpu = cpu
        self.said: list[str] = []
        self.output = b""

    def options(self, command: tuple[str, ...] = SERVER, **more: Any) -> LocalOptions:
        env = {"FAKE_PROXY_LOG": str(self.log_file), "FAKE_PROXY_CORES": "1", "FAKE_PROXY_MOOD": more.pop("mood", "")}
        given = {"settings": SETTINGS, "control": self.cpu, "grace_s": 20.0, "start_timeout_s": 30.0} | more
        return LocalOptions(
            command, proxy_command=FAKE, env=env, say=self.said.append, output=self._keep, **given
        )  # fmt: skip

    def log(self) -> list[Event]:
        return [(name, value) for name, value in map(json.loads, self.log_file.read_text().splitlines())]

    def environment(self) -> dict[str, str]:
        return next(value for name, value in self.log() if name == "environment")

    def want(self, **demand: float) -> None:
        url = f"http://127.0.0.1:{self.environment()['SPONGE_ADMIN_PORT']}/want"
        request = urllib.request.Request(url, json.dumps(demand).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=20):
            pass

    async def sees(self, *events: Event) -> None:
        await until(lambda: self.log()[-len(events) :] == list(events), f"{events} at the end of {self.log_file}")

    def _keep(self, data: bytes) -> None:
        self.output += data


def serve(options: LocalOptions, scene: Callable[[LocalService], Awaitable[None]]) -> LocalService:
    service = LocalService(options)

    async def main() -> None:
        async with service:
            await scene(service)

    asyncio.run(main())
    return service


async def never(_: LocalService) -> None:
    pytest.fail("must not get here")
