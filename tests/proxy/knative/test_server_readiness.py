"""The user's readiness probe, run against model servers that come up, redirect, refuse or never answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from knative_sponge.proxy.knative.server_readiness import Readiness
from knative_sponge.settings import Probe
from tests.proxy.harness import Script, answering, closed_port, model_server, ok, on_loop, until
from tests.proxy.wire import LOCAL, Wire, fields_of

ONCE = Probe(LOCAL, 0, period_s=10.0, timeout_s=5.0)


class Patient(Readiness):
    """Tries as a pod does, on machines of any speed."""

    interval_s = 0.01
    attempt_s = 5.0


class Hasty(Patient):
    """Gives up soon."""

    give_up_s = 0.1


def status(code: int, *fields: bytes) -> Script:
    return answering(b"\r\n".join([b"HTTP/1.1 %d X" % code, b"Content-Length: 0", *fields, b"", b""]))


@on_loop
async def test_no_probe_is_always_ready() -> None:
    assert await Readiness(()).check()


@on_loop
async def test_a_tcp_probe_wants_an_open_port() -> None:
    async with model_server(answering(ok())) as fake:
        assert await Readiness([replace(ONCE, port=fake.port)]).check()
        assert fake.seen == []
    assert not await Readiness([replace(ONCE, port=closed_port())]).check()


@pytest.mark.parametrize(
    ("code", "ready"), [(200, True), (204, True), (399, True), (302, True), (400, False), (503, False)]
)
@on_loop
async def test_an_http_probe_wants_a_status_from_200_to_399(code: int, ready: bool) -> None:
    async with model_server(status(code)) as fake:
        assert await Readiness([replace(ONCE, port=fake.port, path="/ready")]).check() is ready


@on_loop
async def test_an_http_probe_says_who_it_is_and_what_it_was_told_to_say() -> None:
    async with model_server(status(200)) as fake:
        headers = (("X-Key", "v"), ("Host", "ignored"))
        assert await Readiness([replace(ONCE, port=fake.port, path="/a?b=c", headers=headers)]).check()
        assert fake.seen[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
        assert dict(fields_of(fake.seen[0])) == {
            b"user-agent": b"kube-probe//",
            b"accept-encoding": b"gzip",
            b"x-key": b"v",
            b"host": b"127.0.0.1:%d" % fake.port,
        }


@pytest.mark.parametrize(("code", "ready"), [(200, True), (500, False)])
@on_loop
async def test_a_redirect_is_followed(code: int, ready: bool) -> None:
    async def redirects(wire: Wire) -> None:
        head = await wire.head()
        there = head.startswith(b"GET /there ")
        await (status(code) if there else status(302, b"Location: /there"))(_Replayed(wire, head))

    async with model_server(redirects) as fake:
        assert await Readiness([replace(ONCE, port=fake.port, path="/here")]).check() is ready
        assert [head.split()[1] for head in fake.seen] == [b"/here", b"/there"]


class _Replayed(Wire):
    """A wire whose head was read already."""

    def __init__(self, wire: Wire, head: bytes) -> None:
        super().__init__(wire.reader, wire.writer)
        self._head: bytes | None = head

    async def head(self) -> bytes:
        head, self._head = self._head, None
        return await super().head() if head is None else head


@on_loop
async def test_redirects_in_a_circle_are_not_ready() -> None:
    async with model_server(status(302, b"Location: /")) as fake:
        assert not await Readiness([replace(ONCE, port=fake.port, path="/")]).check()
        assert len(fake.seen) == 10


@on_loop
async def test_all_probes_must_pass() -> None:
    async with model_server(status(200)) as fake:
        good = replace(ONCE, port=fake.port, path="/")
        assert await Readiness([good, good]).check()
        assert not await Readiness([good, replace(ONCE, port=closed_port())]).check()


@on_loop
async def test_a_probe_without_a_period_is_tried_until_it_passes() -> None:
    answers = [503, 503, 200]

    async def improves(wire: Wire) -> None:
        await status(answers.pop(0))(wire)

    async with model_server(improves) as fake:
        assert await Patient([Probe(LOCAL, fake.port, path="/")]).check()
        assert answers == []


@on_loop
async def test_a_probe_without_a_period_needs_its_successes_in_a_row() -> None:
    answers = [200, 503, 200, 200]

    async def wavers(wire: Wire) -> None:
        await status(answers.pop(0))(wire)

    async with model_server(wavers) as fake:
        assert await Patient([Probe(LOCAL, fake.port, path="/", success_threshold=2)]).check()
        assert answers == []


@on_loop
async def test_a_probe_without_a_period_gives_up() -> None:
    async with model_server(status(503)) as fake:
        assert not await Hasty([Probe(LOCAL, fake.port, path="/")]).check()
        assert len(fake.seen) > 1


@on_loop
async def test_a_probe_that_is_not_answered_in_time_fails() -> None:
    async def hangs(wire: Wire) -> None:
        await wire.gone()

    async with model_server(hangs) as fake:
        assert not await Readiness([replace(ONCE, port=fake.port, path="/", timeout_s=0.05)]).check()


@on_loop
async def test_callers_share_one_check_and_leaving_does_not_end_it() -> None:
    go = asyncio.Event()

    async def slow(wire: Wire) -> None:
        await wire.head()
        await go.wait()
        await wire.send(ok())

    async with model_server(slow) as fake:
        readiness = Readiness([replace(ONCE, port=fake.port, path="/")])
        callers = [asyncio.create_task(readiness.check()) for _ in range(10)]
        await until(lambda: bool(fake.seen))
        callers[0].cancel()
        go.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert results[1:] == [True] * 9
        assert len(fake.seen) == 1
        assert await readiness.check(), "nothing is remembered"
        assert len(fake.seen) == 2
