"""What the autoscaler is told on port 9090: the arithmetic against a brute-force integral, the bytes against a decoder of
its own, the port as the autoscaler asks it (docs/knative-contract.md §1.14, §9 row 19)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.proxy.app import data_app
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.knative.stat import Occupancy, Stat, StatReporter, encode
from knative_sponge.proxy.server import build
from knative_sponge.proxy.upstream.pool import Upstream
from tests.proxy.harness import SETTINGS, model_server, ok, on_loop, serving
from tests.proxy.tunnel_kit import OFFER, switching
from tests.proxy.wire import LOCAL, Wire, client
from tests.virtual_time import run_virtual

Visit = tuple[float, float, bool]


def decoded(data: bytes) -> dict[int, float | bytes]:
    """Fields of a protobuf message by number, as the wire format says."""
    found: dict[int, float | bytes] = {}

    def varint() -> int:
        nonlocal data
        number = shift = 0
        while True:
            byte, data = data[0], data[1:]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while data:
        field, kind = divmod(varint(), 8)
        assert field not in found
        if kind == 1:
            found[field] = struct.unpack("<d", data[:8])[0]
            data = data[8:]
        else:
            assert kind == 2
            length = varint()
            assert len(data) >= length
            found[field], data = data[:length], data[length:]
    return found


numbers = st.floats(0.0, 1e9, allow_subnormal=False)


@given(st.text(max_size=253), st.lists(numbers, min_size=5, max_size=5))
def test_a_stat_can_be_read_back_and_zeros_are_left_out(pod: str, values: list[float]) -> None:
    expected = {1: pod.encode(), **dict(enumerate(values, start=2))}
    assert decoded(encode(Stat(pod, *values))) == {field: value for field, value in expected.items() if value}


def test_the_largest_stat_is_read_whole_by_the_autoscaler() -> None:
    assert len(encode(Stat("p" * 253, 1.0, 1.0, 1.0, 1.0, 1.0))) <= 336


def test_an_idle_stat_is_the_name_and_the_age() -> None:
    assert encode(Stat("pod", uptime_s=1.0)) == b"\n\x03pod1" + struct.pack("<d", 1.0)


times = st.integers(0, 4000).map(lambda tick: tick / 1000)
visits = st.lists(st.tuples(times, times, st.booleans()).map(lambda v: (min(v[:2]), max(v[:2]), v[2])), max_size=30)


@given(visits, st.lists(times, min_size=1, max_size=4, unique=True).map(sorted))
def test_means_and_rates_are_those_of_the_window(visits: list[Visit], ends: list[float]) -> None:
    """Against the sum over a fine grid, on which every change falls."""
    changes = sorted(
        [(begin, 1, True, proxied) for begin, _, proxied in visits]
        + [(end, 2, False, proxied) for _, end, proxied in visits]
        + [(end, 0, False, False) for end in ends],
        key=lambda change: change[:2],
    )
    occupancy = Occupancy(0.0)
    windows: list[tuple[float, Stat]] = []
    for at_s, kind, entering, proxied in changes:
        if kind == 0:
            windows.append((at_s, occupancy.take(at_s, "p", at_s)))
        else:
            (occupancy.enter if entering else occupancy.leave)(at_s, proxied)
    begin_s = 0.0
    for end_s, stat in windows:
        ticks = range(round(begin_s * 1000), round(end_s * 1000))
        for only_proxied, mean, rate in (
            (False, stat.concurrency, stat.request_rate),
            (True, stat.proxied_concurrency, stat.proxied_request_rate),
        ):
            counted = [visit for visit in visits if visit[2] or not only_proxied]
            inside = sum(
                max(0, min(round(b * 1000), ticks.stop) - max(round(a * 1000), ticks.start)) for a, b, _ in counted
            )
            came = sum(begin_s <= a < end_s for a, _, _ in counted)
            length_s = end_s - begin_s
            assert math.isclose(mean, inside / 1000 / length_s if length_s else 0.0, abs_tol=1e-6)
            assert math.isclose(rate, came / length_s if length_s else 0.0, abs_tol=1e-6)
        begin_s = end_s


@given(visits, times)
def test_idle_is_the_time_since_nobody_has_been_inside(visits: list[Visit], now: float) -> None:
    changes = sorted(
        [(begin, 1, proxied) for begin, _, proxied in visits] + [(end, 2, proxied) for _, end, proxied in visits]
    )
    occupancy = Occupancy(0.0)
    for at_s, kind, proxied in changes:
        if at_s <= now:
            (occupancy.enter if kind == 1 else occupancy.leave)(at_s, proxied)
    inside = any(begin <= now < end for begin, end, _ in visits)
    last_s = max((end for _, end, _ in visits if end <= now), default=0.0)
    assert occupancy.idle_s(now) == (0.0 if inside else now - last_s)


def test_reading_a_window_makes_nobody_less_idle() -> None:
    occupancy = Occupancy(0.0)
    occupancy.enter(1.0, False)
    occupancy.leave(2.0, False)
    occupancy.take(5.0, "p", 5.0)
    assert occupancy.idle_s(6.0) == 4.0


async def scraped(reporter: StatReporter) -> dict[int, float | bytes]:
    """What `/metrics` says now."""
    bodies: list[bytes] = []

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        bodies.append(body)

    async def receive() -> dict[str, object]:
        raise AssertionError

    await reporter({"path": "/metrics"}, receive, send)  # type: ignore[arg-type]
    return decoded(b"".join(bodies))


def test_windows_follow_each_other_without_drift_and_a_missed_one_makes_the_next_longer() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        busy_s = 0.0
        reporter = StatReporter("pod", lambda: loop.time() + busy_s)
        assert await scraped(reporter) == {1: b"pod"}
        reporter.start()
        reporter.enter(True)
        reporter.enter(False)
        await asyncio.sleep(0.5)
        reporter.leave(False)
        assert await scraped(reporter) == {1: b"pod"}, "the first window has not ended"
        await asyncio.sleep(0.501)
        assert await scraped(reporter) == pytest.approx({1: b"pod", 2: 1.5, 3: 1.0, 4: 2.0, 5: 1.0, 6: 1.0})
        await asyncio.sleep(0.5)
        loop._virtual.now += 1.7  # type: ignore[attr-defined] # the loop was busy: two ends of windows went by
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = await scraped(reporter)
        assert found == pytest.approx({1: b"pod", 2: 1.0, 3: 1.0, 6: loop.time() - began_s})
        assert reporter._timer is not None
        assert reporter._timer.when() == pytest.approx(began_s + 4.0)
        reporter.stop()
        await asyncio.sleep(2.0)
        assert await scraped(reporter) == found

    run_virtual(scenario)


@on_loop
async def test_the_port_answers_as_the_autoscaler_expects() -> None:
    async with serving(StatReporter("pod")) as port, client(port) as one:
        for reply in (
            await one.get(b"/metrics", b"Accept: application/protobuf"),
            await one.post(b"", target=b"/metrics"),
        ):
            assert reply.status == 200
            assert reply.field(b"content-type") == b"application/protobuf"
            assert reply.body == b"\n\x03pod"
        other = await one.get(b"/")
        assert (other.status, other.body) == (404, b"404 page not found\n")


class Prompt(StatReporter):
    """Publishes faster than the autoscaler asks."""

    period_s = 0.02


@on_loop
async def test_a_tunnel_counts_as_long_as_it_is_open() -> None:
    stat = Prompt("pod", time.monotonic)
    async with model_server(switching()) as fake:
        upstream = Upstream(LOCAL, fake.port)
        stat.start()
        async with serving(data_app(SETTINGS, upstream, Drain(0.0), stat=stat)) as port, client(port) as one:
            await one.send(OFFER + b"\r\n")
            assert (await one.head()).startswith(b"HTTP/1.1 101 ")
            while (await scraped(stat)).get(2) != pytest.approx(1.0):
                await asyncio.sleep(0.005)
            one.close()
            while 2 in await scraped(stat):
                await asyncio.sleep(0.005)
        stat.stop()
        upstream.close()


@on_loop
async def test_requests_count_while_they_wait_and_run_and_probes_do_not() -> None:
    go = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await go.wait()
        await wire.send(ok())

    stat = Prompt("pod", time.monotonic)
    async with model_server(script) as fake:
        upstream = Upstream(LOCAL, fake.port)
        servers = build(
            replace(SETTINGS, user_port=fake.port, container_concurrency=1, stat_port=0), upstream=upstream, stat=stat
        )
        assert servers.stat is not None
        stat.start()
        await servers.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(servers.stop)
            stack.callback(go.set)
            stack.callback(stat.stop)
            port, stat_port = servers.data.port, servers.stat.port
            clients = [await stack.enter_async_context(client(port)) for _ in range(4)]
            asking = await stack.enter_async_context(client(stat_port))
            for number, one in enumerate(clients):
                more = b"K-Proxy-Request: %b\r\n" % (b"activator" if number < 3 else b"other")
                await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % more)
            probe = await stack.enter_async_context(client(port))
            await probe.get(b"/", b"User-Agent: kube-probe/1", b"K-Network-Probe: queue")

            async def told(concurrency: float, proxied: float) -> None:
                while True:
                    found = decoded((await asking.get(b"/metrics")).body)
                    if (found.get(2, 0.0), found.get(3, 0.0)) == pytest.approx((concurrency, proxied)):
                        return
                    await asyncio.sleep(0.005)

            await told(4.0, 3.0)
            go.set()
            for one in clients:
                assert (await one.reply()).status == 200
            await told(0.0, 0.0)
