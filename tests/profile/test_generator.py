from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from knative_sponge.errors import SpongeError
from knative_sponge.profile.client import Job
from knative_sponge.profile.generator import run_load
from knative_sponge.profile.load import Body, Outcome, Planned

pytestmark = pytest.mark.anyio

BODIES = (Body(b"first", {"content-type": "text/plain"}), Body(b"second", {}))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


class Service:
    """A plain HTTP/1.1 server: refuses bodies `second`, and says what it got."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            lines = head.decode().split("\r\n")[1:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append((headers, body))
            writer.write(
                b"HTTP/1.1 504 Gateway Timeout\r\nsponge-reason: hopeless\r\ncontent-length: 0\r\n\r\n"
                if body == b"second"
                else b"HTTP/1.1 200 OK\r\nsponge-batch: 4\r\ncontent-length: 2\r\n\r\nok"
            )
            await writer.drain()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self.serve(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(quietly, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/infer"
            yield self


async def test_a_load_reaches_the_service_and_every_outcome_comes_back() -> None:
    async with Service().running() as service:
        planned = tuple(Planned(0.02 * index, 0.01, 1.0, index % 2) for index in range(10))
        heard: list[Outcome] = []
        before = time.monotonic()
        load = await run_load(Job(service.url, BODIES, planned), heard.append)
    assert before < load.start_s < time.monotonic()
    assert list(load.outcomes) == heard
    assert {outcome.planned for outcome in load.outcomes} == set(planned)
    assert {(o.planned.body, o.status, o.reason, o.batch) for o in heard} == {
        (0, 200, None, 4),
        (1, 504, "hopeless", None),
    }
    assert all(outcome.lag_s >= 0 and outcome.latency_s >= 0.01 for outcome in heard)
    assert {(body, headers.get("content-type", "")) for headers, body in service.requests} >= {(b"first", "text/plain")}
    assert all(headers["x-sponge-slo-ms"] == "1000" for headers, _ in service.requests)


async def test_nobody_listening_is_an_outcome_of_every_request() -> None:
    async with Service().running() as service:
        url = service.url
    load = await run_load(Job(url, BODIES, (Planned(0, 0, 1, 0), Planned(0.01, 0, 1, 1))))
    assert [(outcome.status, outcome.met) for outcome in load.outcomes] == [(0, False)] * 2


async def test_a_client_process_that_fails_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no luck today >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(SpongeError, match="no luck today"):
        await run_load(Job("http://127.0.0.1:1/", BODIES, (Planned(0, 0, 1, 0),)))


async def test_cancelling_a_load_ends_its_process() -> None:
    async with Service().running() as service:
        first = asyncio.Event()
        planned = (Planned(0, 0, 1, 0), Planned(3600, 0, 1, 0))
        load = asyncio.create_task(run_load(Job(service.url, BODIES, planned), lambda _: first.set()))
        await first.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
    assert children() == []


def test_a_plan_that_names_a_missing_body_is_refused() -> None:
    with pytest.raises(ValueError, match="body"):
        Job("http://127.0.0.1/", BODIES, (Planned(0, 0, 1, 2),))


async def test_an_answer_to_something_else_is_told_from_the_right_one() -> None:
    bodies = (Body(b"first", {}, contains=b"ok"), Body(b"third", {}, contains=b"not this"))
    async with Service().running() as service:
        job = Job(service.url, bodies, (Planned(0.0, 0.0, 5.0, 0), Planned(0.0, 0.0, 5.0, 1)))
        load = await run_load(job)
    right, wrong = sorted(load.outcomes, key=lambda outcome: outcome.planned.body)
    assert (right.reason, right.met) == (None, True)
    assert (wrong.reason, wrong.met) == ("wrong-answer", False)
