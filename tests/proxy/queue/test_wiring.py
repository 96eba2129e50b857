"""The whole proxy on real ports: inference, control, demand, state, metrics."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from knative_sponge.errors import SettingError
from knative_sponge.proxy.queue.wiring import Inference
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ServingSettings
from tests.proxy.harness import on_loop, until
from tests.proxy.live import TOKEN, Live, live, proxy_settings


@on_loop
async def test_concurrent_requests_are_merged_and_each_gets_its_own_answer() -> None:
    async with live() as proxy:
        replies = await asyncio.gather(*(proxy.predict(f"i{n}") for n in range(100)))
        assert [reply for _, _, reply in replies] == [{"predictions": [{"of": f"i{n}"}]} for n in range(100)]
        assert proxy.model.calls < 100
        assert all(count == 1 for count in proxy.model.seen.values())


@on_loop
async def test_the_settings_of_a_revision_bound_bytes_and_rows_of_its_requests() -> None:
    async with live({"max-body": "2Ki", "max-rows": "3"}) as proxy:
        assert (await proxy.predict("a", "b", "c"))[0] == 200
        for instances, setting in (
            (("a", "b", "c", "d"), "max-rows allows 3"),
            (("x" * 2048,), "max-body allows 2048"),
        ):
            status, _, refused = await proxy.predict(*instances)
            assert status == 413
            assert setting in refused["error"]
        settings = (await proxy.state())["settings"]
        assert (settings["max-body"], settings["max-rows"]) == ("2Ki", "3")


@on_loop
async def test_what_is_no_inference_passes_through() -> None:
    async with live() as proxy:
        async with proxy.session.post(f"{proxy.url}/cpu", json={"x": 1}) as answer:
            assert answer.status == 200
        assert proxy.model.hooks == [{"x": 1}]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "tökén"])
@on_loop
async def test_nobody_without_the_token_changes_a_size_or_reads_the_demand(token: str | None) -> None:
    async with live() as proxy:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        before = (await proxy.state())["cores"]["now"]
        assert await proxy.put_cores({"cores": 3.0, "phase": "actuated"}, token) == 401
        async with proxy.session.get(f"{proxy.admin}/sponge/v1/demand", headers=headers) as answer:
            assert answer.status == 401
        assert (await proxy.state())["cores"]["now"] == before


@on_loop
async def test_the_digest_of_the_token_suffices_to_know_it_and_does_not_open() -> None:
    """Many may read a pod's environment. Who reads the digest there can resize nothing."""
    digest = hashlib.sha256(TOKEN.encode())
    async with live(control_token="another", control_token_sha256=digest.digest()) as proxy:
        for shown in (digest.hexdigest(), "another", "", None):
            assert await proxy.put_cores({"cores": 3.0, "phase": "actuated"}, shown) == 401
        assert await proxy.put_cores({"cores": 3.0, "phase": "actuated"}) == 204
        assert (await proxy.state())["cores"]["now"] == 3.0


@pytest.mark.parametrize("token", [None, "wrong", TOKEN])
@on_loop
async def test_the_state_is_shown_to_the_pod_itself_and_to_who_has_its_token(token: str | None) -> None:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with live(host="0.0.0.0") as proxy:
        # 127.0.0.1 is what `kubectl port-forward` comes from; another pod's address is none of 127.0.0.1.
        asked = {}
        for own, host in (("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.2"), ("127.0.0.6", "127.0.0.1")):
            connector = aiohttp.TCPConnector(local_addr=(own, 0))
            url = f"http://{host}:{proxy.servers.admin.port}/sponge/v1/state"
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(url, headers=headers) as answer,
            ):
                asked[own, host] = answer.status
        others = 200 if token == TOKEN else 401
        assert list(asked.values()) == [200, others, others]


@on_loop
async def test_without_a_token_of_its_own_the_proxy_obeys_nobody() -> None:
    async with live(control_token=None) as proxy:
        assert await proxy.put_cores({"cores": 3.0, "phase": "actuated"}, "") == 401
        assert await proxy.put_cores({"cores": 3.0, "phase": "actuated"}, "None") == 401


@pytest.mark.parametrize(
    "message",
    [
        {}, [], 5, {"cores": 1.0}, {"cores": "x", "phase": "patched"}, {"cores": 0, "phase": "patched"},
        {"cores": -1, "phase": "patched"}, {"cores": float("inf"), "phase": "patched"}, {"cores": 1.0, "phase": "soon"},
        {"cores": 1.0, "phase": "patched", "x": "y" * 5000}, {"cores": 2.0, "phase": "actuated", "reach": 0},
        {"cores": 2.0, "phase": "actuated", "reach": "far"}, {"cores": 2.0, "phase": "actuated", "reach": None},
        {"cores": 2.0, "phase": "actuated", "reach": float("nan")},
    ],
)  # fmt: skip
@on_loop
async def test_a_size_that_makes_no_sense_is_refused_and_changes_nothing(message: Any) -> None:
    async with live() as proxy:
        assert await proxy.put_cores(message) == 400
        assert (await proxy.state())["cores"]["now"] == 1.0


@on_loop
async def test_growth_is_planned_with_when_actuated_and_shrink_when_patched() -> None:
    async with live({"cpu-hook": "/cpu"}) as proxy:
        assert await proxy.put_cores({"cores": 2.0, "phase": "patched"}) == 204
        cores = (await proxy.state())["cores"]
        assert (cores["now"], cores["coming"]) == (1.0, 2.0)
        assert proxy.model.hooks == [], "growth: quota first, then threads"
        await proxy.put_cores({"cores": 2.0, "phase": "actuated"})
        assert (await proxy.state())["cores"]["now"] == 2.0
        await until(lambda: proxy.model.hooks == [{"cores": 2.0}])
        await proxy.put_cores({"cores": 0.5, "phase": "patched"})
        assert (await proxy.state())["cores"]["now"] == 0.5
        await until(lambda: proxy.model.hooks == [{"cores": 2.0}, {"cores": 0.5}])
        await proxy.put_cores({"cores": 0.5, "phase": "actuated"})
        assert proxy.model.hooks == [{"cores": 2.0}, {"cores": 0.5}], "what it knows it is not told again"


async def next_line(lines: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await anext(lines))
    return message


@on_loop
async def test_the_demand_comes_at_once_and_when_it_changes() -> None:
    async with live({"slo": "300ms"}) as proxy:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with proxy.session.get(f"{proxy.admin}/sponge/v1/demand", headers=headers) as answer:
            lines = aiter(answer.content)
            first = await next_line(lines)
            assert (first["v"], first["cores"], first["want"], first["queued"]) == (1, 1.0, 0.1, 0)
            assert len(first["curve"]) == 8
            proxy.model.hung = True
            waiting = [asyncio.create_task(proxy.predict(f"i{n}")) for n in range(40)]
            message = await next_line(lines)
            while message["want"] <= first["want"]:
                message = await next_line(lines)
            assert message["seq"] > first["seq"]
            await asyncio.gather(*waiting)


@on_loop
async def test_the_demand_is_repeated_every_second_though_nothing_changes() -> None:
    async with live() as proxy:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with proxy.session.get(f"{proxy.admin}/sponge/v1/demand", headers=headers) as answer:
            lines = aiter(answer.content)
            sequence = [(await next_line(lines))["seq"] for _ in range(3)]
            assert sequence == sorted(set(sequence))


@on_loop
async def test_a_failed_estimate_does_not_end_the_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live() as proxy:
        estimator = proxy.inference._feed._estimator
        healthy, failures = estimator.want, [KeyError("a defect")]

        def want(now: float) -> float:
            if failures:
                raise failures.pop()
            return healthy(now)

        monkeypatch.setattr(estimator, "want", want)
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with proxy.session.get(f"{proxy.admin}/sponge/v1/demand", headers=headers) as answer:
            lines = aiter(answer.content)
            for _ in range(3):
                await next_line(lines)
        assert not failures


@on_loop
async def test_the_baseline_asks_for_the_size_it_has_and_still_serves() -> None:
    async with live(policy="fifo", cores=2.0) as proxy:
        replies = await asyncio.gather(*(proxy.predict(f"i{n}") for n in range(20)))
        assert [reply for _, _, reply in replies] == [{"predictions": [{"of": f"i{n}"}]} for n in range(20)]
        state = await proxy.state()
        assert (state["cores"]["now"], state["cores"]["want"]) == (2.0, 2.0)


@on_loop
async def test_the_state_shows_settings_cores_queue_and_model_but_no_request() -> None:
    async with live({"max-batch": "4"}) as proxy:
        await proxy.predict("very-private")
        state = await proxy.state()
        assert state["settings"]["max-batch"] == "4"
        assert set(state) == {"version", "settings", "cores", "queue", "running", "rate", "model"}
        assert "very-private" not in json.dumps(state)
        assert TOKEN not in json.dumps(state)


@on_loop
async def test_metrics_count_outcomes_and_batches() -> None:
    async with live() as proxy:
        await proxy.predict("a")
        await proxy.predict("b", slo_ms=4_000)
        await proxy.predict("c", slo_ms=10_000)
        for _ in range(3):
            async with proxy.session.get(f"{proxy.url}/docs") as answer:
                await answer.read()
        async with proxy.session.get(f"{proxy.metrics}/metrics") as answer:
            text = await answer.text()
        assert 'sponge_requests_total{outcome="ok"} 3.0' in text
        assert 'sponge_deadline_source_total{source="slo"} 2.0' in text
        assert "sponge_clipped_budgets_total 1.0" in text
        assert 'sponge_deadline_source_total{source="x-sponge-slo-ms"} 1.0' in text
        assert "sponge_batch_rows_count 3.0" in text
        assert "sponge_cores 1.0" in text
        assert "sponge_passed_through_total 3.0" in text
        async with proxy.session.get(f"{proxy.metrics}/other") as answer:
            assert answer.status == 404


@on_loop
async def test_the_model_server_that_is_not_there_is_a_clear_502() -> None:
    async with live() as proxy:
        await proxy.model.kill()
        status, reason, body = await proxy.predict("a")
        assert (status, reason) == (502, "upstream-refused")
        assert body["error"]


def test_a_profile_starts_the_model_warm(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"

    @on_loop
    async def learn() -> None:
        async with live() as proxy:
            for number in range(5):
                await proxy.predict(f"i{number}")
            path.write_text(json.dumps((await proxy.state())["model"]))

    @on_loop
    async def start_again() -> None:
        async with live(profile=str(path)) as proxy:
            assert (await proxy.state())["model"]["params"] == json.loads(path.read_text())["params"]

    learn()
    start_again()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 99}'])
def test_a_profile_that_cannot_be_used_is_a_setting_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(content)
    settings = proxy_settings(1, profile=str(path))
    with pytest.raises(SettingError, match="SPONGE_PROFILE"):
        Inference(settings, ServingSettings(slo_s=1.0), Upstream("127.0.0.1", 1))


def test_the_sidecar_imports_nothing_heavy() -> None:
    code = (
        "import sys, knative_sponge.proxy.__main__, knative_sponge.proxy.queue.wiring; "
        "print([m for m in ('numpy','ortools','kubernetes','pandas','rich','PIL','aiohttp','matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


@on_loop
async def test_clients_that_leave_cost_the_model_server_nothing() -> None:
    async with live() as proxy:
        proxy.model.hung = True
        first = asyncio.create_task(proxy.predict("first"))
        await until(lambda: proxy.model.calls == 1)
        gone = [asyncio.create_task(proxy.predict(f"gone{n}")) for n in range(5)]
        await until(lambda: _queued(proxy) == 5)
        for task in gone:
            task.cancel()
        await until(lambda: _queued(proxy) == 0)
        proxy.model.hung = False
        first.cancel()
        status, _, _ = await proxy.predict("after")
        assert status == 200
        assert set(proxy.model.seen) == {"first", "after"}


def _queued(proxy: Live) -> int:
    return len(proxy.inference._batcher.queue)


@on_loop
async def test_an_open_demand_stream_does_not_hold_up_the_end() -> None:
    async with live() as proxy:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with proxy.session.get(f"{proxy.admin}/sponge/v1/demand", headers=headers) as answer:
            await next_line(aiter(answer.content))
            await proxy.servers.stop()
            while await answer.content.readline():  # what was said before the end
                pass
            assert answer.content.at_eof()
