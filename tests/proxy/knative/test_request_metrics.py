"""What operators see of requests: Knative's metrics on their port, and the request log (docs/knative-contract.md §1.13)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from knative_sponge import __version__
from knative_sponge.proxy.app import data_app
from knative_sponge.proxy.knative.breaker import Breaker
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.knative.observe import Observers
from knative_sponge.proxy.knative.request_log import DEFAULT, RequestLog
from knative_sponge.proxy.knative.request_metrics import RequestMetrics
from knative_sponge.proxy.queue.metrics import MetricsPage
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import Observability
from tests.proxy.harness import (
    SETTINGS,
    ModelServer,
    answering,
    closed_port,
    model_server,
    ok,
    on_loop,
    serving,
    until,
)
from tests.proxy.live import live
from tests.proxy.test_proxy_settings import KNATIVE
from tests.proxy.wire import LOCAL, Wire, client

NAMED = replace(SETTINGS, service="svc")


class Scene:
    """A proxy that is looked at."""

    def __init__(self, port: int, registry: CollectorRegistry, breaker: Breaker | None) -> None:
        self.port = port
        self.registry = registry
        self.breaker = breaker
        self.lines: list[str] = []

    def value(self, name: str, **labels: str) -> float | None:
        """A sample; labels not given may be anything."""
        found = [
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert len(found) <= 1
        return found[0] if found else None


@contextlib.asynccontextmanager
async def looked_at(
    fake: ModelServer | int, *, concurrency: int = 0, template: str = DEFAULT, probes: bool = False, **settings: Any
) -> AsyncIterator[Scene]:
    registry = CollectorRegistry()
    breaker = Breaker(concurrency) if concurrency else None
    upstream = Upstream(LOCAL, fake if isinstance(fake, int) else fake.port)
    metrics = RequestMetrics(NAMED, registry, breaker)
    scene = Scene(0, registry, breaker)
    log = RequestLog(template, NAMED, lambda line: scene.lines.append(line.decode()), probes=probes)
    app = data_app(
        replace(NAMED, **settings), upstream, Drain(0.0), breaker=breaker,
        observers=Observers([metrics.outer, log], [metrics.inner]),
    )  # fmt: skip
    async with serving(app) as port:
        scene.port = port
        yield scene
        upstream.close()


OUTER = {
    "http_request_method": "POST", "http_response_status_code": "201", "kn_route_tag": "kn:disabled",
    "network_protocol_name": "http", "network_protocol_version": "1.1", "url_scheme": "http",
}  # fmt: skip


@on_loop
async def test_a_request_is_counted_with_its_status_and_its_sizes() -> None:
    answer = b"HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    async with (
        model_server(answering(answer)) as fake,
        looked_at(fake) as scene,
        client(scene.port) as one,
    ):
        assert (await one.post(b"hello", b"K-Kubelet-Probe:")).status == 201
        for name, total in (("request_body_size_bytes", 5), ("response_body_size_bytes", 4)):
            assert scene.value(f"http_server_{name}_sum", **OUTER) == total
            assert scene.value(f"http_server_{name}_bucket", le="5.0") == 1
        assert scene.value("http_server_request_duration_seconds_count", **OUTER) == 1
        assert scene.value("kn_serving_invocation_duration_seconds_count", http_response_status_code="201") == 1
        assert scene.value("kn_serving_queue_depth") is None


@on_loop
async def test_probes_are_not_counted_and_not_logged_unless_wanted() -> None:
    async with model_server(answering(ok())) as fake:
        for wanted in (False, True):
            async with looked_at(fake, probes=wanted) as scene, client(scene.port) as one:
                await one.get(b"/", b"User-Agent: kube-probe/1", b"K-Network-Probe: queue")
                await one.get(b"/", b"K-Network-Probe: probe", b"K-Network-Hash: h")
                await one.get(b"/", b"K-Kubelet-Probe: queue")
                assert scene.value("http_server_request_duration_seconds_count") is None
                assert scene.value("kn_serving_invocation_duration_seconds_count") is None
                assert len(scene.lines) == 3 * wanted


@on_loop
async def test_failures_of_the_proxys_own_have_their_status() -> None:
    async with looked_at(closed_port()) as scene, client(scene.port) as one:
        assert (await one.get()).status == 502
        assert scene.value("http_server_request_duration_seconds_count", http_response_status_code="502") == 1
        assert scene.value("kn_serving_invocation_duration_seconds_count", http_response_status_code="502") == 1
        line = json.loads(scene.lines[0])["httpRequest"]
        assert (line["status"], int(line["responseSize"]) > 0) == (502, True)


@on_loop
async def test_an_answer_that_breaks_off_keeps_the_status_that_was_sent() -> None:
    seen = asyncio.Event()

    async def breaks_off(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 203 X\r\nContent-Length: 10\r\n\r\nabc")
        await seen.wait()

    async with model_server(breaks_off) as fake, looked_at(fake) as scene, client(scene.port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await one.head()).startswith(b"HTTP/1.1 203 ")
        assert await one.exactly(3) == b"abc"
        seen.set()
        await until(lambda: bool(scene.lines))
        line = json.loads(scene.lines[0])["httpRequest"]
        assert (line["status"], line["responseSize"]) == (203, "3")
        assert scene.value("kn_serving_invocation_duration_seconds_count", http_response_status_code="203") == 1


@on_loop
async def test_a_timeout_and_a_client_that_left_are_told_apart() -> None:
    async def silent(wire: Wire) -> None:
        await wire.gone()

    async with model_server(silent) as fake, looked_at(fake, timeout_s=1) as scene:
        async with client(scene.port) as one:
            await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: fake.connections == 1)
        await until(lambda: len(scene.lines) == 1)
        async with client(scene.port) as one:
            assert (await one.get()).status == 504
        assert [json.loads(line)["httpRequest"]["status"] for line in scene.lines] == [499, 504]


@on_loop
async def test_waiting_is_part_of_the_request_but_not_of_the_invocation_and_shows_as_depth() -> None:
    go = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await go.wait()
        await wire.send(ok())

    async with contextlib.AsyncExitStack() as stack:
        fake = await stack.enter_async_context(model_server(script))
        scene = await stack.enter_async_context(looked_at(fake, concurrency=1))
        clients = [await stack.enter_async_context(client(scene.port)) for _ in range(3)]
        replies = [asyncio.create_task(one.get()) for one in clients]
        await until(lambda: scene.value("kn_serving_queue_depth") == 3)
        go.set()
        await asyncio.gather(*replies)
        assert scene.value("kn_serving_queue_depth") == 0
        whole = scene.value("http_server_request_duration_seconds_sum")
        inner = scene.value("kn_serving_invocation_duration_seconds_sum")
        assert whole is not None
        assert inner is not None
        assert whole > inner


@on_loop
async def test_a_clients_free_choice_makes_only_so_many_series() -> None:
    async with model_server(answering(ok())) as fake, looked_at(fake) as scene, client(scene.port) as one:
        for number in range(80):
            await one.ask(b"PROPFIND / HTTP/1.1\r\nHost: h%d\r\nKnative-Serving-Tag: t%d" % (number, number))
        await one.get(b"/", b"Knative-Serving-Tag: " + b"x" * 64)
        await one.get(b"/", b"Knative-Serving-Tag: t99", b"Knative-Serving-Default-Route: true")
        await one.get(b"/", b"Knative-Serving-Default-Route: true")
        found = [
            (sample.labels["http_request_method"], sample.labels["kn_route_tag"], sample.value)
            for family in scene.registry.collect()
            for sample in family.samples
            if sample.name == "http_server_request_duration_seconds_count"
        ]
        expected = [("_OTHER", f"t{number}", 1.0) for number in range(50)]
        expected += [("_OTHER", "kn:undefined", 30.0), ("GET", "kn:undefined", 2.0), ("GET", "kn:default", 1.0)]
        assert sorted(found) == sorted(expected)


@on_loop
async def test_the_page_says_whose_it_is() -> None:
    async with model_server(answering(ok())) as fake, looked_at(fake) as scene:
        page = MetricsPage(scene.registry)
        async with serving(page) as port, client(port) as one:
            reply = await one.get(b"/metrics")
            families = {family.name: family for family in text_string_to_metric_families(reply.body.decode())}
            assert [sample.labels for sample in families["target_info"].samples] == [
                {
                    "container_name": "queue-proxy", "k8s_namespace_name": "ns", "k8s_pod_name": "pod",
                    "kn_configuration_name": "conf", "kn_revision_name": "rev", "kn_service_name": "svc",
                    "service_instance_id": "pod", "service_name": "svc", "service_version": __version__,
                }
            ]  # fmt: skip
            assert (await one.get(b"/")).status == 404
            assert (await one.post(b"", target=b"/metrics")).status == 405


@on_loop
async def test_merged_requests_count_one_by_one_without_their_waiting() -> None:
    registry = CollectorRegistry()
    async with live(request_metrics=RequestMetrics(NAMED, registry, None)) as proxy:
        await asyncio.gather(*(proxy.predict(f"i{n}") for n in range(10)))
        name, labels = "kn_serving_invocation_duration_seconds_count", {"http_response_status_code": "200"}
        assert registry.get_sample_value(name, labels) == 10
        async with proxy.session.get(f"{proxy.metrics}/metrics") as answer:
            text = await answer.text()
        assert "kn_serving_invocation_duration_seconds_sum" in text
        assert "sponge_requests_total" in text


@on_loop
async def test_the_default_line_is_knatives() -> None:
    async with model_server(answering(ok())) as fake, looked_at(fake) as scene, client(scene.port) as one:
        trace = b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await one.get(b"/a%2Fb?x='\"", b'User-Agent: u"a', b"Referer: http://r/", trace)
        await one.post(b"hello", b"X-B3-Traceid: abc")
        await one.ask(b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")
        first, second, third = (json.loads(line.replace("\\'", "'")) for line in scene.lines)
        assert all(line.endswith("}\n") for line in scene.lines)
        request = first["httpRequest"]
        assert request.pop("latency").removesuffix("s").replace(".", "", 1).replace("e-", "").isdigit()
        host, _, port = request.pop("remoteIp").rpartition(":")
        assert (host, port.isdigit()) == (LOCAL, True)
        assert request == {
            "requestMethod": "GET", "requestUrl": "/a%2Fb?x='\"", "requestSize": "0", "status": 200,
            "responseSize": "2", "userAgent": 'u"a', "serverIp": LOCAL, "referer": "http://r/", "protocol": "HTTP/1.1",
        }  # fmt: skip
        assert first["traceId"] == "0af7651916cd43dd8448eb211c80319c"
        assert (second["traceId"], second["httpRequest"]["requestSize"]) == ("abc", "5")
        assert (third["traceId"], third["httpRequest"]["requestSize"]) == ("", "-1")


@on_loop
async def test_a_template_of_the_operators_own() -> None:
    template = (
        '{{.Request.Host}}|{{.Request.Header.Get "x-key"}}|{{.Request.Header.Get "Host"}}|{{.Request.URL.Path}}|'
        "{{.Request.URL.RawQuery}}|{{.Request.ProtoMajor}}|{{.Revision.Name}}|{{.Revision.Namespace}}|"
        "{{.Revision.Service}}|{{.Revision.Configuration}}|{{.Revision.PodName}}"
    )
    async with (
        model_server(answering(ok())) as fake,
        looked_at(fake, template=template) as scene,
        client(scene.port) as one,
    ):
        await one.get(b"/a%2Fb?x", b"X-Key: 1", b"X-Key: 2", b"K-Original-Host: other")
        assert scene.lines == ["a.example|1||/a/b|x|1|rev|ns|svc|conf|pod\n"]


def test_a_template_that_is_not_understood_is_replaced_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        RequestLog("{{if .TraceID}}x{{end}}", NAMED, lambda _line: None, probes=False)
    assert len(caplog.records) == 1
    assert "default" in caplog.records[0].message


def test_what_no_configuration_asks_for_is_off() -> None:
    assert Observability() == Observability(request_metrics="none", request_log=None)
    assert "OBSERVABILITY_CONFIG" not in KNATIVE
