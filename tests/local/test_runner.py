"""The whole of it: a model server behind a (fake) proxy, both as real processes, cores following demand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.errors import SettingError
from knative_sponge.local.control import Entry, FakeCpu
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.procfs import descendants
from knative_sponge.local.runner import LocalService, ServiceError
from knative_sponge.settings import ServingSettings
from tests.local.conditions import HAVE_V1, V1_CPU, alive, until, wait_until
from tests.local.fake_proxy import Event

FAKE = (sys.executable, "-m", "tests.local.fake_proxy")
CODE = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
assert sys.argv[1] == os.environ["PORT"]
HTTPServer(("127.0.0.1", int(sys.argv[1])), BaseHTTPRequestHandler).serve_forever()
"""
SERVER = (sys.executable, "-c", CODE, "{port}")
SETTINGS = ServingSettings(slo_s=0.5, max_cores=1.0)


class Stage:
    """Options for a service before the fake proxy, and the fake's log."""

    def __init__(self, folder: Path, cpu: FakeCpu | None) -> None:
        self.log_file = folder / "log"
        self.log_file.touch()
        self.cpu = cpu
        self.said: list[str] = []
        self.output = b""

    def options(self, command: tuple[str, ...] = SERVER, **more: Any) -> LocalOptions:
        env = {"FAKE_PROXY_LOG": str(self.log_file), "FAKE_PROXY_CORES": "1", "FAKE_PROXY_MOOD": more.pop("mood", "")}
        given = {"settings": SETTINGS, "control": self.cpu, "grace_s": 20.0, "start_timeout_s": 30.0} | more
        return LocalOptions(
            command, proxy_command=FAKE, env=env, say=self.said.append, output=self._keep, **given
        )  # fmt: skip

    def log(self) -> list[Event]:
        return [(name, value) for name, value in map(json.loads, self.log_file.read_text().splitlines())]

    def environment(self) -> dict[str, str]:
        return next(value for name, value in self.log() if name == "environment")

    def want(self, **demand: float) -> None:
        url = f"http://127.0.0.1:{self.environment()['SPONGE_ADMIN_PORT']}/want"
        request = urllib.request.Request(url, json.dumps(demand).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=20):
            pass

    async def sees(self, *events: Event) -> None:
        await until(lambda: self.log()[-len(events) :] == list(events), f"{events} at the end of {self.log_file}")

    def _keep(self, data: bytes) -> None:
        self.output += data


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, FakeCpu(limit_cores=8.0, period_s=0.02, used_s=3.0))


@pytest.fixture
def real(tmp_path: Path) -> Stage:
    return Stage(tmp_path, None)


def serve(options: LocalOptions, scene: Callable[[LocalService], Awaitable[None]]) -> LocalService:
    service = LocalService(options)

    async def main() -> None:
        async with service:
            await scene(service)

    asyncio.run(main())
    return service


def test_cores_follow_demand_from_the_first_line_to_the_drain(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        await stage.sees(("demand", 1))
        assert stage.cpu is not None
        assert stage.cpu.history == [1.0], "it starts at the most allowed"
        stage.want(want=0.3)
        await stage.sees(("patched", 0.3), ("actuated", 0.3))
        stage.cpu.used_s = 5.5
        stage.want(want=0.7)
        await stage.sees(("actuated", 0.7))
        await until(lambda: service.cores == 0.7, "recorded")

    service = serve(stage.options(), scene)
    assert ("drained", None) in stage.log(), "the proxy ended in order, with the model server still there"
    assert service.server_status == 128 + signal.SIGTERM
    assert [cores for _, cores in service.cores_history] == [1.0, 0.3, 0.7]
    assert service.cores_history[0][0] == 0.0
    assert service.core_seconds() == service.core_seconds() > 0.0, "time stands still after the end"
    assert service.used_core_seconds() == 2.5, "what loading took is not counted"
    assert stage.cpu is not None
    assert stage.cpu.closed


def test_the_proxy_finds_what_knative_and_we_promise_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPONGE_CPU_HOOK", "/other")  # of another program: not ours to pass on

    async def scene(service: LocalService) -> None:
        env = stage.environment()
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

    serve(stage.options(), scene)


def test_the_most_cores_are_bounded_by_what_this_process_may_use(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        assert ServingSettings.from_env(stage.environment()).max_cores == len(os.sched_getaffinity(0))

    serve(stage.options(settings=ServingSettings(slo_s=0.5, max_cores=999.0)), scene)
    assert any("max-cores 999 lowered" in line for line in stage.said)


def test_a_fixed_size_is_held_and_no_demand_is_followed(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        assert not service.follows
        assert stage.cpu is not None
        assert stage.cpu.history == [0.6]
        settings = ServingSettings.from_env(stage.environment())
        assert (settings.min_cores, settings.max_cores) == (0.6, 0.6)
        assert stage.environment()["SPONGE_CORES"] == "600m"

    service = serve(stage.options(fixed_cores=0.6), scene)
    assert [cores for _, cores in service.cores_history] == [0.6]
    assert "demand" not in dict(stage.log())


def test_a_fixed_size_between_two_that_can_be_set_becomes_the_larger_and_that_is_said(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        assert service.cores == 1.0
        assert stage.environment()["SPONGE_CORES"] == "1"

    stage.cpu = FakeCpu(granularity_cores=1.0, limit_cores=8.0)
    serve(stage.options(fixed_cores=0.6), scene)
    assert stage.said == ["fixed-cores 0.6 becomes 1: fake sets nothing finer"]


def test_without_an_slo_the_size_stays_at_the_most_allowed(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        assert not service.follows
        assert service.cores == 1.0

    serve(stage.options(settings=ServingSettings(max_cores=1.0)), scene)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"fixed_cores": 999.0}, "fixed-cores"), ({"settings": ServingSettings(min_cores=999.0)}, "min-cores")],
)
def test_a_size_that_cannot_be_had_is_a_setting_error_and_nothing_starts(
    stage: Stage, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        serve(stage.options(**more), never)
    assert stage.cpu is not None
    assert stage.cpu.closed


async def never(_: LocalService) -> None:
    pytest.fail("must not get here")


def test_a_server_that_dies_at_the_start_is_quoted(stage: Stage) -> None:
    command = ("sh", "-c", "echo loading; echo 'no such model: x' >&2; exit 3")
    with pytest.raises(ServiceError, match=r"(?s)before it accepted.*the model server ended with status 3.*such model"):
        serve(stage.options(command), never)
    assert stage.log() == [], "the proxy was never started"


def test_a_server_that_never_listens_is_ended_after_its_time(stage: Stage) -> None:
    with pytest.raises(ServiceError, match=r"(?s)did not accept a connection in 0.3 s.*thinking"):
        serve(stage.options(("sh", "-c", "echo thinking; exec sleep 60"), start_timeout_s=0.3), never)


def test_a_proxy_that_dies_at_the_start_is_quoted_and_takes_the_server_along(stage: Stage) -> None:
    service = LocalService(stage.options(mood="dies"))

    async def main() -> None:
        async with service:
            pytest.fail("must not get here")

    with pytest.raises(ServiceError, match=r"(?s)the proxy ended with status 1.*cannot go on"):
        asyncio.run(main())
    assert service.server_status == 128 + signal.SIGTERM


def test_wait_says_how_the_model_server_ended(stage: Stage, tmp_path: Path) -> None:
    fate = tmp_path / "fate"
    doomed = CODE.replace(".serve_forever()", " as server:") + (
        "    server.timeout = 0.01\n"
        "    while not os.path.exists(sys.argv[2]): server.handle_request()\n"
        "sys.exit('out of memory')\n"
    )
    doomed = doomed.replace("HTTPServer((", "with HTTPServer((")

    async def scene(service: LocalService) -> None:
        fate.touch()
        assert await service.wait() == "the model server ended with status 1; its last lines:\nout of memory\n"
        assert service.server_status == 1

    serve(stage.options((sys.executable, "-c", doomed, "{port}", str(fate))), scene)


def test_wait_says_when_the_proxy_is_gone(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        (guardian,) = (process.pid for process in descendants(os.getpid()) if is_proxys_guardian(process.pid))
        os.kill(guardian, signal.SIGTERM)
        assert (await service.wait()).startswith("the proxy ended")

    serve(stage.options(), scene)


def is_proxys_guardian(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"tests.local.fake_proxy" in words and b"--" in words


def test_a_proxy_that_does_not_end_is_killed_after_the_grace_and_the_server_then_asked(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        pass

    service = serve(stage.options(mood="never ends", grace_s=0.2), scene)
    assert service.server_status is not None


def test_kill_cuts_a_stop_short(stage: Stage) -> None:
    async def main() -> None:
        service = LocalService(stage.options(mood="never ends", grace_s=600.0))
        async with service:
            stopping = asyncio.create_task(service.stop())
            await until(lambda: service.stopping, "the stop began")
            service.kill()
            await stopping
        assert service.server_status == 128 + signal.SIGKILL

    asyncio.run(main())


def test_a_block_that_fails_leaves_nothing_behind(stage: Stage) -> None:
    async def scene(service: LocalService) -> None:
        raise RuntimeError("the user's own")

    before = {process.pid for process in descendants(os.getpid())}
    with pytest.raises(RuntimeError, match="the user's own"):
        serve(stage.options(), scene)
    assert {process.pid for process in descendants(os.getpid())} <= before


def test_a_cancelled_start_leaves_nothing_behind(stage: Stage) -> None:
    async def main() -> None:
        starting = asyncio.create_task(LocalService(stage.options(("sleep", "60"))).__aenter__())
        await until(lambda: any(process.pid for process in descendants(os.getpid())), "the server runs")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    before = {process.pid for process in descendants(os.getpid())}
    asyncio.run(main())
    assert {process.pid for process in descendants(os.getpid())} <= before
    assert stage.cpu is not None
    assert stage.cpu.closed


def test_the_server_enters_by_the_controls_entry(stage: Stage, tmp_path: Path) -> None:
    joined = tmp_path / "cgroup.procs"
    joined.touch()

    class Doorkeeper(FakeCpu):
        @property
        def entry(self) -> Entry:
            return Entry(joins=(joined,))

    stage.cpu = Doorkeeper(limit_cores=8.0)

    async def scene(service: LocalService) -> None:
        assert joined.read_text() == "0"

    serve(stage.options(), scene)


@pytest.mark.skipif(not HAVE_V1, reason="needs the right to make cgroup v1 groups in the cpu hierarchy")
def test_a_real_group_follows_demand_and_is_gone_at_the_end(real: Stage) -> None:
    assert V1_CPU is not None
    mine = f"sponge-*-{os.getpid()}-*"
    before = set(V1_CPU.own.glob(mine))

    async def scene(service: LocalService) -> None:
        await real.sees(("demand", 1))
        assert V1_CPU is not None
        (group,) = set(V1_CPU.own.glob(mine)) - before
        real.want(want=0.25)
        await until(lambda: (group / "cpu.cfs_quota_us").read_text() == "5000\n", "a quarter of 20 ms")
        real.want(want=0.5)
        await until(lambda: (group / "cpu.cfs_quota_us").read_text() == "10000\n", "half of 20 ms")

    service = serve(real.options(), scene)
    assert set(V1_CPU.own.glob(mine)) == before
    assert service.used_core_seconds() >= 0
    assert service.throttled_s() >= 0
    assert real.said[0].startswith("cores set by cgroup v1")


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.local.test_runner import Stage
from knative_sponge.local.runner import LocalService
async def main():
    async with LocalService(Stage(Path(sys.argv[1]), None).options()):
        print("up", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_both_programs_and_the_group_are_gone_after_the_runner_was_killed(tmp_path: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert runner.stdout is not None
    assert runner.stdout.readline() == b"up\n"
    tree = [process.pid for process in descendants(runner.pid)]
    assert len(tree) == 4, "two guardians, two programs"
    runner.kill()
    runner.wait()
    runner.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in tree), "all processes are gone")
    if HAVE_V1 and V1_CPU is not None:
        own = V1_CPU.own
        wait_until(lambda: not list(own.glob(f"sponge-*-{runner.pid}-*")), "the group is gone")
