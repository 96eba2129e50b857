"""What the proxy tells the autoscaler, line by line, and what it believes of it: the cores within reach."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from types import SimpleNamespace

import pytest

from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import to_json
from knative_sponge.errors import Reason
from knative_sponge.proxy.queue import control
from knative_sponge.proxy.queue.metrics import Metrics
from tests.proxy.harness import on_loop, until
from tests.proxy.live import live

KEYS = {
    "v", "seq", "cores", "coming", "want", "rate", "rows", "slack", "queued", "running", "idle_s", "met", "missed",
    "max_batch", "params", "cost", "samples", "curve",
}  # fmt: skip


@on_loop
async def test_the_first_line_of_a_proxy_that_nobody_has_asked_anything() -> None:
    async with live({"max-batch": "16"}) as proxy:
        line = await proxy.demand()
        assert set(line) == KEYS
        assert (line["v"], line["coming"], line["slack"], line["samples"], line["max_batch"]) == (1, None, None, 0, 16)
        assert (line["met"], line["missed"], line["rows"]) == (0, 0, 1.0)
        assert line["idle_s"] >= 0.0


@on_loop
async def test_the_line_says_what_was_learned_and_what_became_of_the_requests() -> None:
    async with live({"slo": "4s"}) as proxy:
        for _ in range(3):
            await proxy.predict("a", "b", slo_ms=2000)
        line = await proxy.demand(lambda one: one["met"] == 3)
        assert line["samples"] == 2, "the first call of a model server pays for what later ones do not"
        assert line["rows"] == 2.0
        assert 3.0 < line["slack"] <= 4.0, "the client's claim buys nothing"
        model = (await proxy.state())["model"]["params"]
        assert line["params"] == pytest.approx([model[name] for name in ("gamma", "delta", "epsilon", "eta")], rel=1e-5)
        proxy.model.hung = True
        await proxy.predict("late", slo_ms=50)
        line = await proxy.demand(lambda one: one["missed"])
        assert (line["met"], line["missed"]) == (3, 1)


@on_loop
@pytest.mark.parametrize(("before", "after"), [(1.0, 1.05), (2.0, 1.0)])
async def test_what_is_measured_while_a_resize_is_under_way_is_of_no_size(before: float, after: float) -> None:
    """Whether the quota has changed already, nobody knows: not the larger size's speed, learned as the smaller one's. (A growth
    so small that no latency proves it.)"""
    async with live(cores=before) as proxy:
        for _ in range(4):  # the first one is cold
            assert (await proxy.predict("a"))[0] == 200
        assert (await proxy.demand(lambda one: one["met"] == 4))["samples"] == 3
        assert await proxy.put_cores({"cores": after, "phase": "patched"}) == 204
        for _ in range(3):
            assert (await proxy.predict("a"))[0] == 200
        assert (await proxy.demand(lambda one: one["met"] == 7))["samples"] == 3
        assert await proxy.put_cores({"cores": after, "phase": "actuated"}) == 204
        assert (await proxy.predict("a"))[0] == 200
        assert (await proxy.demand(lambda one: one["met"] == 8))["samples"] == 4


@on_loop
async def test_a_resize_that_nobody_confirms_does_not_end_all_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_UNDER_WAY_S", 0.0)
    async with live(cores=1.0) as proxy:
        assert await proxy.put_cores({"cores": 2.0, "phase": "patched"}) == 204
        for _ in range(3):
            assert (await proxy.predict("a"))[0] == 200
        assert (await proxy.demand(lambda one: one["met"] == 3))["samples"] == 2


def test_growths_that_keep_being_asked_for_and_never_come_do_not_end_all_learning_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    resizing = control.Resizing(1.0, 4.0, lambda _: None, None)
    for step in range(10):
        resizing.take(resizing.size.patched(2.0 + 0.1 * (step % 3)))
        assert resizing.size_confirmed is (step > 2)
        clock[0] += 2.0
    resizing.take(resizing.size.actuated(2.0))
    assert resizing.size_confirmed
    resizing.take(resizing.size.patched(3.0))
    assert not resizing.size_confirmed


@on_loop
async def test_any_request_ends_the_idle_time_and_one_that_runs_keeps_it_from_beginning() -> None:
    async with live() as proxy:
        await proxy.demand(lambda one: one["idle_s"] > 0.5)
        asked_s = time.monotonic()
        async with proxy.session.post(f"{proxy.url}/cpu", json={"passed": "through"}) as answer:
            assert answer.status == 200
        await proxy.demand(lambda one: one["idle_s"] <= time.monotonic() - asked_s)
        proxy.model.hung = True
        running = asyncio.create_task(proxy.predict("a"))
        await until(lambda: proxy.model.calls == 1)
        since = await proxy.demand(lambda one: one["idle_s"] == 0.0)
        assert (await proxy.demand(lambda one: one["seq"] > since["seq"]))["idle_s"] == 0.0
        running.cancel()
        await proxy.demand(lambda one: one["idle_s"] > 0.0)


@on_loop
async def test_a_growth_under_way_is_shown_until_it_is_there() -> None:
    async with live() as proxy:
        await proxy.put_cores({"cores": 2.0, "phase": "patched"})
        assert (await proxy.demand(lambda one: one["coming"]))["coming"] == 2.0
        await proxy.put_cores({"cores": 2.0, "phase": "actuated"})
        assert (await proxy.demand(lambda one: one["cores"] == 2.0))["coming"] is None


@pytest.mark.parametrize(
    ("told", "reach"),
    [
        pytest.param({}, 4.0, id="unknown: what the user allows"),
        pytest.param({"reach": 2.5}, 2.5, id="told"),
        pytest.param({"reach": 9.0}, 4.0, id="more than the user allows"),
        pytest.param({"reach": 0.2}, 1.5, id="less than is there"),
    ],
)
@on_loop
async def test_the_reach_lies_between_the_size_and_what_the_user_allows(told: dict[str, float], reach: float) -> None:
    async with live() as proxy:
        assert await proxy.put_cores({"cores": 1.5, "phase": "actuated"} | told) == 204
        assert (await proxy.state())["cores"]["reach"] == reach
        assert proxy.inference._batcher.reach == reach
        await proxy.demand(lambda one: one["cores"] == 1.5 and one["curve"][-1][0] == reach)


@on_loop
async def test_without_a_bound_of_the_user_the_reach_that_is_told_counts() -> None:
    cores = os.cpu_count() or 1
    async with live({"max-cores": ""}) as proxy:
        assert (await proxy.state())["cores"]["reach"] == max(cores, 1.0)
        await proxy.put_cores({"cores": 1.0, "phase": "actuated", "reach": cores + 30.0})
        await proxy.demand(lambda one: one["curve"][-1][0] == cores + 30.0)


@on_loop
async def test_a_reach_stays_until_another_is_told() -> None:
    async with live() as proxy:
        await proxy.put_cores({"cores": 1.0, "phase": "actuated", "reach": 2.0})
        await proxy.put_cores({"cores": 0.5, "phase": "patched"})
        assert (await proxy.state())["cores"]["reach"] == 2.0
        await proxy.put_cores({"cores": 0.5, "phase": "actuated", "reach": 3.0})
        assert (await proxy.state())["cores"]["reach"] == 3.0
        await proxy.put_cores({"cores": 3.5, "phase": "actuated"})
        assert (await proxy.state())["cores"]["reach"] == 3.5, "what is there is within reach"


@on_loop
async def test_a_new_reach_alone_is_no_new_size_for_the_model_server() -> None:
    async with live({"cpu-hook": "/cpu"}) as proxy:
        await proxy.put_cores({"cores": 2.0, "phase": "actuated", "reach": 3.0})
        await until(lambda: proxy.model.hooks == [{"cores": 2.0}])
        for reach in (2.5, 4.0):
            await proxy.put_cores({"cores": 2.0, "phase": "actuated", "reach": reach})
        await proxy.put_cores({"cores": 1.0, "phase": "actuated", "reach": 4.0})
        await until(lambda: len(proxy.model.hooks) > 1)
        assert proxy.model.hooks == [{"cores": 2.0}, {"cores": 1.0}]


@on_loop
async def test_what_the_cores_within_reach_cannot_save_is_dropped_early_and_not_asked_for() -> None:
    slow = LatencyModel(LatencyParams(1.0, 0.0, 0.0, 0.0))  # a row takes a core-second
    async with live(profile=json.dumps(to_json(slow))) as proxy:
        await proxy.put_cores({"cores": 1.0, "phase": "actuated", "reach": 1.0})
        proxy.model.hung = True
        holding = asyncio.create_task(proxy.predict("first", slo_ms=5000))
        await until(lambda: proxy.model.calls == 1)
        status, reason, _ = await proxy.predict("second", slo_ms=700)
        assert (status, reason) == (504, "hopeless"), "with 4 cores it would have taken a quarter of a second"
        assert (await proxy.demand())["want"] <= 1.0
        holding.cancel()


@on_loop
async def test_the_baseline_has_no_opinion_on_what_is_within_reach() -> None:
    async with live(policy="fifo", cores=2.0) as proxy:
        assert await proxy.put_cores({"cores": 2.0, "phase": "actuated", "reach": 3.0}) == 204
        line = await proxy.demand(lambda one: one["seq"] > 1)
        assert (line["want"], line["curve"][-1][0]) == (2.0, 2.0)


@on_loop
async def test_a_profile_may_be_the_variable_itself() -> None:
    model = LatencyModel()
    for _ in range(5):
        model.observe(Sample(2, 1.0, 0.25), 0.0)
    async with live(profile=json.dumps(to_json(model))) as proxy:
        line = await proxy.demand()
        assert line["samples"] == 5
        assert sum(line["params"][:2]) * 2 + sum(line["params"][2:]) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("profile", ["{", "{}", '{"version": 99}', '{"version":1,"prior":[]}', "{" * 200_000])
def test_a_broken_profile_in_the_variable_keeps_no_pod_from_starting(
    profile: str, caplog: pytest.LogCaptureFixture
) -> None:
    @on_loop
    async def start() -> None:
        async with live(profile=profile) as proxy:
            assert (await proxy.demand())["samples"] == 0
            assert (await proxy.predict("a"))[0] == 200

    with caplog.at_level(logging.WARNING, "knative_sponge.proxy.queue.wiring"):
        start()
    assert "SPONGE_PROFILE" in caplog.text


@pytest.mark.parametrize(
    ("tell", "met", "missed"),
    [
        pytest.param(lambda one: one.answered(200, 0.0, 0.0, 0.1), 1, 0, id="in time"),
        pytest.param(lambda one: one.answered(404, 0.1, 0.0, 0.1), 1, 0, id="the model server's own answer in time"),
        pytest.param(lambda one: one.answered(200, -0.1, 0.0, 0.1), 0, 1, id="late"),
        pytest.param(lambda one: one.answered(503, 0.1, 0.0, 0.1), 0, 1, id="failed by the model server"),
        pytest.param(lambda one: one.refused(Reason.HOPELESS), 0, 1, id="dropped"),
        pytest.param(lambda one: one.refused(Reason.UPSTREAM_REFUSED), 0, 1, id="failed"),
        pytest.param(lambda one: one.refused(Reason.BAD_REQUEST), 0, 0, id="not understood"),
        pytest.param(lambda one: one.gone(), 0, 0, id="client gone"),
    ],
)  # fmt: skip
def test_a_request_meets_its_deadline_or_misses_it_or_is_its_clients_fault(tell: object, met: int, missed: int) -> None:
    metrics = Metrics()
    tell(metrics)  # type: ignore[operator]
    assert (metrics.met, metrics.missed) == (met, missed)
