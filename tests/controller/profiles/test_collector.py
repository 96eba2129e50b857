"""Models are fetched from proxies, and what is no model changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from knative_sponge.controller.profiles import collector
from knative_sponge.controller.profiles.collector import ModelCollector
from tests.controller.profile_kit import KEYS, document
from tests.controller.revision_kit import run

LOCAL = "127.0.0.1"
TOKEN = "t-1"


class Heard:
    def __init__(self) -> None:
        self.models: dict[str, tuple[Mapping[str, Any], float | None]] = {}

    def learn(self, key: str, model: Mapping[str, Any], cores: float | None) -> None:
        self.models[key] = model, cores


@asynccontextmanager
async def proxy(body: bytes, status: int = 200, **headers: str) -> AsyncIterator[int]:
    async def state(request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        return web.Response(status=status, body=body, headers=headers)

    app = web.Application()
    app.router.add_get("/sponge/v1/state", state)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOCAL, 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def state(**changed: Any) -> dict[str, Any]:
    return {"rate": 5.0, "cores": {"now": 2.0, "want": 1.5}, "model": document(), "more": [1], **changed}


def heard(body: bytes, status: int = 200, **headers: str) -> dict[str, tuple[Mapping[str, Any], float | None]]:
    async def collect() -> Heard:
        found = Heard()
        async with proxy(body, status, **headers) as port:
            await ModelCollector(found, port=port).collect({KEYS[0]: (LOCAL, TOKEN)})
        return found

    return run(collect()).models


def test_a_model_and_the_size_that_its_pod_needs_are_heard() -> None:
    assert heard(json.dumps(state()).encode()) == {KEYS[0]: (json.loads(json.dumps(document())), 1.5)}


def test_a_size_that_a_pod_wants_and_does_not_get_is_not_what_new_pods_start_with() -> None:
    ((_, cores),) = heard(json.dumps(state(cores={"now": 2.0, "want": 16.0})).encode()).values()
    assert cores == 2.0


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"rate": 0.0}, id="idle"),
        pytest.param({"cores": {"want": 1e5, "now": 1e5}}, id="no pod is started with so many"),
        pytest.param({"cores": {"want": 0.0005, "now": 1}}, id="less than a size"),
    ],
)
def test_a_pod_that_is_idle_or_has_no_size_for_others_tells_its_model_alone(changed: dict[str, Any]) -> None:
    ((_, cores),) = heard(json.dumps(state(**changed)).encode()).values()
    assert cores is None


@pytest.mark.parametrize(
    "changed",
    [
        {"rate": None}, {"rate": -1}, {"cores": None}, {"cores": {}}, {"cores": {"want": "2", "now": 1}},
        {"cores": {"want": 0, "now": 1}}, {"cores": {"want": True, "now": 1}}, {"cores": {"want": 1e9, "now": 1}},
        {"cores": {"want": 1}}, {"cores": {"want": 1, "now": None}},
    ],
    ids=str,
)  # fmt: skip
def test_who_says_what_cannot_be_is_believed_nothing(changed: dict[str, Any]) -> None:
    assert heard(json.dumps(state(**changed)).encode()) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"[" * 60_000, b"\xff", json.dumps(state(model=None)).encode(),
        json.dumps(state(model={"version": 2})).encode(), json.dumps(state(more="x" * 70_000)).encode(),
        json.dumps(state(model=document(3))).encode(),
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_what_is_no_learned_model_is_passed_over(body: bytes) -> None:
    assert heard(body) == {}


@pytest.mark.parametrize("status", [302, 404, 500])
def test_only_an_answer_of_the_pod_itself_counts(status: int) -> None:
    assert heard(json.dumps(state()).encode(), status, location="/sponge/v1/state") == {}


def test_a_pod_that_is_silent_or_gone_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_ANSWER_S", 0.2)

    async def scenario() -> None:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        found = Heard()
        body = json.dumps(state()).encode()
        async with proxy(body) as port, await asyncio.start_server(hold, "127.0.0.2", port), asyncio.timeout(10):
            places = {KEYS[0]: ("127.0.0.2", TOKEN), KEYS[1]: ("127.0.0.3", TOKEN), KEYS[2]: (LOCAL, TOKEN)}
            await ModelCollector(found, port=port).collect(places)
        assert set(found.models) == {KEYS[2]}

    run(scenario())
