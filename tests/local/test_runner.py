"""The whole of it: a model server behind a (fake) proxy, both as real processes, cores following demand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.control import Entry
from knative_sponge.local.ports import Ports
from knative_sponge.local.process import ServiceError
from knative_sponge.local.runner import LocalService
from knative_sponge.proxy.queue.cloudevent_replies import source_of
from knative_sponge.settings import ServingSettings
from tests.local.cpu.writable_groups import HAVE_V1, V1_CPU
from tests.local.fake_cpu import FakeCpu
from tests.local.service_setup import SETTINGS, ServiceSetup, never, serve
from tests.local.waiting import until


def test_cores_follow_demand_from_the_first_line_to_the_drain(service_setup: ServiceSetup) -> None:
    async def scene(service: LocalService) -> None:
        await service_setup.sees(("demand", 1))
        assert service_setup.cpu is not None
        assert service_setup.cpu.history == [1.0], "it starts at the most allowed"
        service_setup.want(want=0.3)
        await service_setup.sees(("patched", 0.3), ("actuated", 0.3))
        service_setup.cpu.used_s = 5.5
        service_setup.want(want=0.7)
        await service_setup.sees(("actuated", 0.7))
        await until(lambda: service.cores == 0.7, "recorded")

    service = serve(service_setup.options(), scene)
    assert ("drained", None) in service_setup.log(), "the proxy ended in order, with the model server still there"
    assert service.server_status == 128 + signal.SIGTERM
    assert [cores for _, cores in service.cores_history] == [1.0, 0.3, 0.7]
    assert service.cores_history[0][0] == 0.0
    assert service.core_seconds() == service.core_seconds() > 0.0, "time stands still after the end"
    assert service.used_core_seconds() == 2.5, "what loading took is not counted"
    assert service_setup.cpu is not None
    assert service_setup.cpu.closed


def test_the_proxy_finds_what_knative_and_we_promise_it(
    service_setup: ServiceSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPONGE_CPU_HOOK", "/other")  # of another program: not ours to pass on

    async def scene(service: LocalService) -> None:
        env = service_setup.environment()
        for name in ("SERVING_NAMESPACE", "SERVING_CONFIGURATION", "SERVING_REVISION", "SERVING_POD", "SERVING_POD_IP"):
            assert env[name]
        assert env["SERVING_LOGGING_CONFIG"] == env["SERVING_LOGGING_LEVEL"] == ""
        assert (env["CONTAINER_CONCURRENCY"], env["REVISION_TIMEOUT_SECONDS"]) == ("0", "300")
        assert service.url == f"http://127.0.0.1:{env['QUEUE_SERVING_PORT']}"
        assert json.loads(env["SERVING_READINESS_PROBE"])["tcpSocket"]["port"] == int(env["USER_PORT"])
        names = ("QUEUE_SERVING_PORT", "USER_PORT", "SPONGE_ADMIN_PORT", "SPONGE_STAT_PORT", "SPONGE_METRICS_PORT")
        assert len({env[name] for name in names}) == 5
        assert (env["SPONGE_CORES"], env["SPONGE_HOST"]) == ("1", "127.0.0.1")
        assert (env["SPONGE_CFS_PERIOD"], env["SPONGE_DRAIN_QUIET"]) == ("20ms", "0")
        assert len(env["SPONGE_CONTROL_TOKEN"]) >= 32
        assert ServingSettings.from_env(env) == SETTINGS

    serve(service_setup.options(), scene)


LOADING = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path == sys.argv[2] and os.path.exists(sys.argv[3])
        open(sys.argv[4], "a").write(self.path + "\\n")
        self.send_response(200 if ready else 503)
        self.send_header("content-length", "0")
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize("named", [None, "/model/up"])
def test_a_server_loads_on_all_its_cores_and_is_served_only_when_it_is_ready(
    service_setup: ServiceSetup, tmp_path: Path, named: str | None
) -> None:
    loaded, asked, path = tmp_path / "loaded", tmp_path / "asked", named or "/v2/health/ready"
    asked.touch()
    command = (sys.executable, "-c", LOADING, "{port}", path, str(loaded), str(asked))

    async def main() -> None:
        service = LocalService(service_setup.options(command, ready_path=named))
        starting = asyncio.create_task(service.__aenter__())
        # It accepts connections and answers: the port alone would say that it is ready.
        await until(lambda: asked.read_text().count("\n") >= 3, "it was asked three times")
        assert service_setup.cpu is not None
        assert service_setup.cpu.history == [1.0], "all the cores that it may have"
        assert service_setup.log() == [], "no proxy yet, so nobody wants fewer cores"
        assert not starting.done()
        loaded.touch()
        await starting
        assert set(asked.read_text().split()) == {path}
        probe = json.loads(service_setup.environment()["SERVING_READINESS_PROBE"])
        assert probe["httpGet"]["path"] == path
        await service_setup.sees(("demand", 1))
        service_setup.want(want=0.3)
        await service_setup.sees(("patched", 0.3), ("actuated", 0.3))
        await service.stop()

    asyncio.run(main())


def test_a_server_that_is_never_ready_is_ended_after_its_time(service_setup: ServiceSetup, tmp_path: Path) -> None:
    command = (sys.executable, "-c", LOADING, "{port}", "/up", "/no/such/file", str(tmp_path / "asked"))
    with pytest.raises(ServiceError, match=r"was not ready in 300ms: GET /up on port \d+ answers 503 \(--ready-path"):
        serve(service_setup.options(command, ready_path="/up", ready_timeout_s=0.3), never)


def test_services_have_names_of_their_own_and_so_have_their_events(service_setup: ServiceSetup) -> None:
    seen: list[dict[str, str]] = []

    async def scene(service: LocalService) -> None:
        seen.append(service_setup.environment())

    serve(service_setup.options(), scene)
    service_setup.log_file.write_text("")
    serve(service_setup.options(), scene)
    service_setup.log_file.write_text("")
    serve(service_setup.options(name="ocr"), scene)
    sources = [source_of(env["SERVING_NAMESPACE"], env["SERVING_CONFIGURATION"]) for env in seen]
    assert len(set(sources)) == 3
    for env, source in zip(seen[:2], sources, strict=False):
        assert source.endswith("-" + env["QUEUE_SERVING_PORT"])
    assert sources[2].endswith("/ocr")
    assert {env["SERVING_SERVICE"] for env in seen[2:]} == {"ocr"}


def test_ports_that_are_named_are_the_proxys(service_setup: ServiceSetup) -> None:
    free = Ports.choose("127.0.0.1")

    async def scene(service: LocalService) -> None:
        env = service_setup.environment()
        assert (env["SPONGE_ADMIN_PORT"], env["SPONGE_METRICS_PORT"]) == (str(free.admin), str(free.metrics))
        assert service.addresses.state_url == f"http://127.0.0.1:{free.admin}/sponge/v1/state"
        assert service.addresses.metrics_url == f"http://127.0.0.1:{free.metrics}/metrics"

    serve(service_setup.options(admin_port=free.admin, metrics_port=free.metrics), scene)


def test_the_most_cores_are_bounded_by_what_this_process_may_use(service_setup: ServiceSetup) -> None:
    async def scene(service: LocalService) -> None:
        assert ServingSettings.from_env(service_setup.environment()).max_cores == len(os.sched_getaffinity(0))

    serve(service_setup.options(settings=ServingSettings(slo_s=0.5, max_cores=999.0)), scene)
    assert any("max-cores 999 lowered" in line for line in service_setup.said)


def test_a_fixed_size_is_held_and_no_demand_is_followed(service_setup: ServiceSetup) -> None:
    async def scene(service: LocalService) -> None:
        assert not service.follows
        assert service_setup.cpu is not None
        assert service_setup.cpu.history == [0.6]
        settings = ServingSettings.from_env(service_setup.environment())
        assert (settings.min_cores, settings.max_cores) == (0.6, 0.6)
        assert service_setup.environment()["SPONGE_CORES"] == "600m"

    service = serve(service_setup.options(fixed_cores=0.6), scene)
    assert [cores for _, cores in service.cores_history] == [0.6]
    assert "demand" not in dict(service_setup.log())


def test_a_fixed_size_between_two_that_can_be_set_becomes_the_larger_and_that_is_said(
    service_setup: ServiceSetup,
) -> None:
    async def scene(service: LocalService) -> None:
        assert service.cores == 1.0
        assert service_setup.environment()["SPONGE_CORES"] == "1"

    service_setup.cpu = FakeCpu(granularity_cores=1.0, limit_cores=8.0)
    serve(service_setup.options(fixed_cores=0.6), scene)
    assert service_setup.said == ["fixed-cores 0.6 becomes 1: fake sets nothing finer"]


def test_without_an_slo_the_size_stays_at_the_most_allowed(service_setup: ServiceSetup) -> None:
    async def scene(service: LocalService) -> None:
        assert not service.follows
        assert service.cores == 1.0

    serve(service_setup.options(settings=ServingSettings(max_cores=1.0)), scene)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"fixed_cores": 999.0}, "fixed-cores"), ({"settings": ServingSettings(min_cores=999.0)}, "min-cores")],
)
def test_a_size_that_cannot_be_had_is_a_setting_error_and_nothing_starts(
    service_setup: ServiceSetup, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        serve(service_setup.options(**more), never)
    assert service_setup.cpu is not None
    assert service_setup.cpu.closed


def test_the_server_enters_by_the_controls_entry(service_setup: ServiceSetup, tmp_path: Path) -> None:
    joined = tmp_path / "cgroup.procs"
    joined.touch()

    class Doorkeeper(FakeCpu):
        @property
        def entry(self) -> Entry:
            return Entry(joins=(joined,))

    service_setup.cpu = Doorkeeper(limit_cores=8.0)

    async def scene(service: LocalService) -> None:
        assert joined.read_text() == "0"

    serve(service_setup.options(), scene)


@pytest.mark.skipif(not HAVE_V1, reason="needs the right to make cgroup v1 groups in the cpu hierarchy")
def test_a_real_group_follows_demand_and_is_gone_at_the_end(real_cpu_setup: ServiceSetup) -> None:
    assert V1_CPU is not None
    mine = f"sponge-*-{os.getpid()}-*"
    before = set(V1_CPU.own.glob(mine))

    async def scene(service: LocalService) -> None:
        await real_cpu_setup.sees(("demand", 1))
        assert V1_CPU is not None
        (group,) = set(V1_CPU.own.glob(mine)) - before
        real_cpu_setup.want(want=0.25)
        await until(lambda: (group / "cpu.cfs_quota_us").read_text() == "5000\n", "a quarter of 20 ms")
        real_cpu_setup.want(want=0.5)
        await until(lambda: (group / "cpu.cfs_quota_us").read_text() == "10000\n", "half of 20 ms")

    service = serve(real_cpu_setup.options(), scene)
    assert set(V1_CPU.own.glob(mine)) == before
    assert service.used_core_seconds() >= 0
    assert real_cpu_setup.said[0].startswith("cores set by cgroup v1")
