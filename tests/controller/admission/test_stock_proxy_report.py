"""Pods that run the stock proxy, and a webhook that nobody calls, do not stay unseen."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from knative_sponge.controller.admission import stock_proxy_report
from knative_sponge.controller.admission.stock_proxy_report import Reporter, StockProxy, broken, stock_proxy
from knative_sponge.controller.cluster.watches import Nodes, Watches
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.events import Recorder
from knative_sponge.controller.kube.resource import (
    EVENTS,
    MUTATING_WEBHOOKS,
    PODS,
    REVISIONS,
    VALIDATING_WEBHOOKS,
    Object,
)
from knative_sponge.controller.reporting.metrics import KEPT, MISSED, Metrics
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.revision_kit import NAME, NAMESPACE, pod, revision, run, until

SLO = {"knative-sponge.dev/slo": "1s"}
KEPT_STOCK = SLO | {
    "knative-sponge.dev/proxy": "stock",
    "knative-sponge.dev/effective": json.dumps({"proxy": "stock", "why": "the user port is named h2c"}),
}


def test_a_pod_that_the_webhook_missed_is_found() -> None:
    found = stock_proxy(pod("p", annotations=SLO))
    assert found is not None
    assert found.why == MISSED


def test_a_pod_that_kept_the_stock_proxy_is_found_with_the_webhooks_words() -> None:
    found = stock_proxy(pod("p", annotations=KEPT_STOCK))
    assert found is not None
    assert found.why == KEPT
    assert "the user port is named h2c" in found.note


def test_an_annotation_that_says_nothing_is_no_trouble() -> None:
    found = stock_proxy(pod("p", annotations=KEPT_STOCK | {"knative-sponge.dev/effective": "[1]"}))
    assert found is not None
    assert "not known" in found.note


def effective(text: str) -> dict[str, str]:
    return KEPT_STOCK | {"knative-sponge.dev/effective": text}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"why":"\\ud800"}', id="no text of Unicode"),
        pytest.param('{"why":' + "[" * 100_000, id="deeper than can be read"),
        pytest.param(json.dumps({"why": "漢" * 1000}), id="longer in bytes than in characters"),
    ],
)
def test_whatever_a_pods_annotation_says_becomes_an_event_that_the_server_takes(text: str) -> None:
    async def body() -> None:
        async with FakeApi() as api, reporting(api) as known:
            api.put(REVISIONS, revision())
            api.put(PODS, pod("p", annotations=effective(text)))
            await until(lambda: known.pods(KEPT) == 1 and len(api.all(EVENTS)) == 1)
            (event,) = api.all(EVENTS)
            assert len(event["note"].encode()) <= 1024

    run(body())


def test_an_annotation_cannot_fake_a_line_of_the_log() -> None:
    found = stock_proxy(pod("p", annotations=effective(json.dumps({"why": "a\n2026 WARNING b"}))))
    assert found is not None
    assert "\n" not in found.note


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(pod("p", annotations={}), id="no SLO"),
        pytest.param(pod("p", annotations=SLO | {"knative-sponge.dev/proxy": "sponge"}), id="our proxy"),
        pytest.param(pod("p", annotations=SLO, containers=("main",)), id="no proxy at all"),
        pytest.param(pod("p", annotations=SLO) | {"status": {"phase": "Failed"}}, id="ended"),
    ],
)
def test_other_pods_are_not_reported(found: Object) -> None:
    assert stock_proxy(found) is None


def test_a_pod_on_its_way_out_is_not_reported() -> None:
    found = pod("p", annotations=SLO)
    found["metadata"]["deletionTimestamp"] = "2026-11-22T08:00:00Z"
    assert stock_proxy(found) is None


def configuration(bundle: str | None) -> Object:
    client: Object = {"service": {"name": "webhook"}} | ({"caBundle": bundle} if bundle is not None else {})
    return {"metadata": {"name": "knative-sponge"}, "webhooks": [{"name": "w", "clientConfig": client}]}


def test_a_webhook_configuration_without_authority_or_webhooks_is_broken() -> None:
    assert broken(None) == "is missing"
    assert broken(configuration(None)) == broken(configuration("")) == "has no certificate authority yet"
    assert broken(configuration("QQ==") | {"webhooks": []}) == "has no webhooks"
    assert broken(configuration("QQ==")) is None


@dataclass(frozen=True, slots=True)
class World:
    """The server, and the reporter running against it."""

    api: FakeApi
    metrics: Metrics

    def pods(self, why: str) -> float | None:
        return self.metrics.registry.get_sample_value("sponge_pods_with_stock_proxy", {"why": why})

    def broken(self) -> float | None:
        return self.metrics.registry.get_sample_value("sponge_webhook_configurations_broken")


@asynccontextmanager
async def reporting(api: FakeApi) -> AsyncIterator[World]:
    kube = Kube.at(api.url)
    watches = Watches(kube, "knative-serving", random.Random(1), Nodes(kube, random.Random(1)))
    metrics = Metrics()
    reporter = Reporter(kube, watches, Recorder(kube, "autoscaler-0"), metrics)
    tasks = [asyncio.create_task(part.run()) for part in (watches.nodes, watches, reporter)]
    try:
        yield World(api, metrics)
    finally:
        for task in tasks:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await kube.close()


def test_each_finding_is_told_once_on_the_revision_and_every_pod_is_counted() -> None:
    async def body() -> None:
        async with FakeApi() as api, reporting(api) as known:
            api.put(REVISIONS, revision())
            for name in ("p1", "p2"):
                api.put(PODS, pod(name, annotations=SLO))
            api.put(PODS, pod("p3", annotations=KEPT_STOCK))
            await until(lambda: known.pods(MISSED) == 2 and known.pods(KEPT) == 1 and len(api.all(EVENTS)) == 2)
            for event in api.all(EVENTS):
                assert event["metadata"]["namespace"] == NAMESPACE
                assert event["regarding"]["kind"] == "Revision"
                assert event["regarding"]["name"] == NAME
                assert (event["type"], event["reason"]) == ("Warning", "StockProxy")
            assert {event["reportingInstance"] for event in api.all(EVENTS)} == {"autoscaler-0"}

            for name in ("p1", "p2", "p3"):
                api.remove(PODS, name, NAMESPACE)
            await until(lambda: known.pods(MISSED) == 0 and known.pods(KEPT) == 0)
            assert len(api.writes(to="events")) == 2

    run(body())


def test_the_next_leader_finds_the_event_and_makes_no_second() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            api.put(REVISIONS, revision())
            api.put(PODS, pod("p", annotations=SLO))
            async with reporting(api):
                await until(lambda: len(api.all(EVENTS)) == 1)
            async with reporting(api):
                await until(lambda: "series" in api.all(EVENTS)[0])
            (event,) = api.all(EVENTS)
            assert event["regarding"]["uid"] == revision()["metadata"]["uid"]

    run(body())


def test_an_event_that_could_not_be_told_is_told_later() -> None:
    async def body() -> None:
        async with FakeApi() as api, reporting(api):
            refused: list[str] = []

            def refuse(method: str, path: str) -> None:
                if method == "POST" and not refused:
                    refused.append(path)
                    raise Refused(500, "InternalError")

            api.before = refuse
            api.put(REVISIONS, revision())
            api.put(PODS, pod("p", annotations=SLO))
            await until(lambda: refused)
            assert api.all(EVENTS) == []
            api.change(PODS, "p", NAMESPACE, status={"phase": "Pending"})
            await until(lambda: len(api.all(EVENTS)) == 1)

    run(body())


def test_webhook_configurations_that_do_not_work_are_counted() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            api.put(MUTATING_WEBHOOKS, configuration("QQ=="))
            async with reporting(api) as known:
                await until(lambda: known.broken() == 1)
            api.put(VALIDATING_WEBHOOKS, configuration(""))
            async with reporting(api) as known:
                await until(lambda: known.broken() == 1)

    run(body())


def test_a_pod_that_nobody_understands_silences_the_report_of_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = stock_proxy_report.stock_proxy

    def broken_for_one(found: Object) -> StockProxy | None:
        if found["metadata"]["name"] == "odd":
            raise KeyError("a defect")
        return real(found)

    monkeypatch.setattr(stock_proxy_report, "stock_proxy", broken_for_one)

    async def body() -> None:
        async with FakeApi() as api, reporting(api) as known:
            api.put(REVISIONS, revision())
            for name in ("a", "odd", "z"):
                api.put(PODS, pod(name, annotations=SLO))
            await until(lambda: known.pods(MISSED) == 2 and len(api.all(EVENTS)) == 1)

    run(body())
    assert caplog.text.count("models/odd cannot be handled") == 1
