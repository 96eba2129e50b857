"""Requests for revisions without pods are found in the activators' metrics, over HTTP and in the text that Go actions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import ENDPOINT_SLICES, Key, Object
from knative_sponge.controller.revisions.activators import (
    LOST_S,
    Activator,
    Activators,
    activators_of,
    held_requests,
    kept_of_slice,
)
from tests.controller.apiserver import FakeApi
from tests.controller.revision_kit import run, until

SYSTEM = "knative-serving"
OCR: Key = ("models", "ocr-00001")
OTHER: Key = ("models", "other-00001")

SCOPE = 'otel_scope_name="knative.dev/serving/pkg/activator",otel_scope_schema_url="",otel_scope_version=""'
INFO = """# HELP target_info Target metadata
# TYPE target_info gauge
target_info{service_name="activator",telemetry_sdk_language="go"} 1
"""


def line(kind: str, number: float, key: Key = OCR) -> str:
    namespace, revision = key
    labels = (
        f'k8s_namespace_name="{namespace}",kn_configuration_name="x",kn_revision_name="{revision}",kn_service_name="x"'
    )
    return f"kn_revision_request_{kind}{{{labels},{SCOPE}}} {number:g}\n"


def page(*lines: str) -> str:
    return "go_threads 7\n# TYPE kn_revision_request_concurrency gauge\n" + "".join(lines) + INFO


def held(text: str, size: int = 1 << 20) -> dict[Key, float]:
    async def chunks() -> AsyncIterator[bytes]:
        data = text.encode()
        for start in range(0, len(data), size):
            yield data[start : start + size]

    async def body() -> dict[Key, float]:
        return dict(await held_requests(chunks()))

    return asyncio.run(body())


def test_a_revision_with_requests_waiting_is_found_and_one_without_is_not() -> None:
    text = page(line("concurrency", 1.5), line("concurrency", 0, OTHER))
    assert held(text) == {OCR: 1.5}


def test_requests_that_are_both_counted_and_gauged_are_not_taken_twice() -> None:
    text = page(line("active", 1), line("concurrency", 2.5), line("queued", 2))
    assert held(text) == {OCR: 3.0}


def test_a_request_that_only_just_came_is_in_the_count_and_not_yet_in_the_gauge() -> None:
    assert held(page(line("concurrency", 0), line("queued", 1))) == {OCR: 1.0}


def test_an_activator_that_never_had_a_request_has_nothing_waiting() -> None:
    assert held(INFO.removeprefix("# HELP target_info Target metadata\n")) == {}


@given(size=st.integers(1, 300), numbers=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_it_does_not_matter_how_the_text_is_cut(size: int, numbers: list[int]) -> None:
    keys = [("models", f"m-{position}") for position in range(len(numbers))]
    text = page(*(line("queued", number, key) for key, number in zip(keys, numbers, strict=True)))
    assert held(text, size) == {key: number for key, number in zip(keys, numbers, strict=True) if number}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("<html>no metrics here</html>\n", id="a page"),
        pytest.param('activator_request_concurrency{revision_name="ocr-00001"} 1\n', id="an older Knative's names"),
        pytest.param(page(line("queued", 1)).replace("} 1\n", "} one\n"), id="a number that is none"),
        pytest.param("x" * 140_000 + "\n" + INFO, id="a line without end"),
    ],
)
def test_what_is_no_activators_metrics_is_no_view(text: str) -> None:
    with pytest.raises(ValueError, match=r"target_info|too long|could not convert"):
        held(text, 30_000)


def slice_of(*endpoints: Object, name: str = "activator-service-x") -> Object:
    labels = {"kubernetes.io/service-name": "activator-service"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": SYSTEM, "labels": labels, "resourceVersion": "1"},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
    }


def endpoint(address: str, **conditions: bool) -> Object:
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod"}}


def test_activators_that_may_hold_requests_are_those_ready_and_those_on_their_way_out() -> None:
    slices = [
        slice_of(
            endpoint("10.0.0.1", ready=True),
            endpoint("10.0.0.2", ready=False, serving=True, terminating=True),
            endpoint("10.0.0.3", ready=False, serving=False),
            {"addresses": ["10.0.0.4"]},
        ),
        slice_of(endpoint("10.0.0.2", ready=False, serving=True), name="second"),
    ]
    assert activators_of(map(kept_of_slice, slices)) == (
        Activator("10.0.0.1", True),
        Activator("10.0.0.2", False),
        Activator("10.0.0.4", True),
    )


class World:
    """The view against an API server and one activator. text: what that answers; None refuses."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.text: str | None = page()
        self.reads = 0
        self.now = 1000.0
        self.requests: list[Key] = []
        self.views: list[tuple[bool, bool]] = []
        self.view: Activators

    async def answer(self, _request: web.Request) -> web.Response:
        self.reads += 1
        return web.Response(status=404) if self.text is None else web.Response(text=self.text)

    async def read(self) -> None:
        """A reading that began after this was called has ended."""
        before = self.reads
        await until(lambda: self.reads >= before + 2)


@asynccontextmanager
async def world(*endpoints: Object, slow_poll_s: float = 0.02) -> AsyncIterator[World]:
    async with FakeApi() as api:
        known = World(api)
        app = web.Application()
        app.router.add_get("/metrics", known.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        api.put(ENDPOINT_SLICES, slice_of(*(endpoints or (endpoint("127.0.0.1", ready=True),))))
        kube = Kube.at(api.url)
        port = runner.addresses[0][1]
        known.view = Activators(
            kube, SYSTEM, random.Random(1), port=port, poll_s=0.02, slow_poll_s=slow_poll_s, clock=lambda: known.now
        )
        known.view.subscribe(known.requests.append, lambda: known.views.append((known.view.visible, known.view.lost)))
        task = asyncio.create_task(known.view.run())
        try:
            yield known
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await kube.close()
            await runner.cleanup()


def test_a_request_for_an_expected_revision_is_told_until_it_is_expected_no_more() -> None:
    async def body() -> None:
        async with world() as known:
            known.text = page(line("queued", 2), line("queued", 1, OTHER))
            await until(lambda: known.view.visible)
            assert known.view.pending(OCR) == 0
            known.view.expect(OCR, True)
            await until(lambda: known.requests.count(OCR) >= 2)
            assert known.view.pending(OCR) == 2
            assert set(known.requests) == {OCR}
            known.text = page(line("queued", 0))
            await known.read()
            assert known.view.pending(OCR) == 0
            known.text = page(line("queued", 1))
            known.view.expect(OTHER, True)
            known.view.expect(OCR, False)
            known.requests.clear()
            await known.read()
            assert (known.requests, known.view.pending(OCR)) == ([], 0)

    run(body())


def test_the_first_expected_revision_makes_the_next_reading_come_at_once() -> None:
    async def body() -> None:
        async with world(slow_poll_s=3600.0) as known:
            await until(lambda: known.view.visible)
            known.view.expect(OCR, True)
            await known.read()

    run(body())


def test_a_view_that_is_lost_for_long_is_told_and_so_is_its_return() -> None:
    async def body() -> None:
        async with world() as known:
            known.view.expect(OCR, True)
            await until(lambda: known.views == [(True, False)])
            known.text = None
            await known.read()
            known.now += LOST_S - 0.1
            await known.read()
            assert known.view.visible
            known.now += 0.1
            await until(lambda: known.views == [(True, False), (False, True)])
            known.text = page()
            await until(lambda: known.views[-1] == (True, False))

    run(body())


def test_a_leader_that_just_began_has_neither_a_view_nor_lost_one() -> None:
    async def body() -> None:
        async with world() as known:
            known.text = None
            known.view.expect(OCR, True)
            await known.read()
            assert (known.view.visible, known.view.lost) == (False, False)
            known.now += LOST_S
            await until(lambda: known.views == [(False, True)])

    run(body())


@pytest.mark.parametrize(
    "endpoints",
    [
        pytest.param((endpoint("127.0.0.1", ready=True), endpoint("127.0.0.2", ready=True)), id="one cannot be read"),
        pytest.param((endpoint("127.0.0.1", ready=False, serving=True),), id="none is ready"),
    ],
)
def test_the_view_is_whole_or_none(endpoints: tuple[Object, ...]) -> None:
    async def body() -> None:
        async with world(*endpoints) as known:
            known.view.expect(OCR, True)
            known.text = page(line("queued", 1))
            await until(lambda: known.requests)
            await known.read()
            # What can be read counts, but it does not suffice to send a revision to zero.
            assert not known.view.visible

    run(body())


def test_requests_of_an_activator_that_is_gone_are_forgotten() -> None:
    async def body() -> None:
        async with world() as known:
            known.text = page(line("queued", 1))
            known.view.expect(OCR, True)
            await until(lambda: known.view.pending(OCR) == 1)
            known.api.put(ENDPOINT_SLICES, slice_of())
            await until(lambda: known.view.pending(OCR) == 0)

    run(body())


def test_a_revision_whose_request_cannot_be_told_keeps_no_other_asleep() -> None:
    async def body() -> None:
        async with world() as known:
            woken: list[Key] = []

            def wake(key: Key) -> None:
                if key == OCR:
                    raise ZeroDivisionError
                woken.append(key)

            known.view.subscribe(wake, lambda: None)
            known.text = page(line("queued", 2), line("queued", 1, OTHER))
            for key in (OCR, OTHER):
                known.view.expect(key, True)
            await until(lambda: len(woken) >= 2)
            assert set(woken) == {OTHER}
            assert known.view.visible

    run(body())
