"""How a local service ends: by itself, by a failure, by a signal; nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from knative_sponge.local.cpu.procfs import descendants
from knative_sponge.local.process import ServiceError
from knative_sponge.local.runner import LocalService
from tests.local.cpu.writable_groups import HAVE_V1, V1_CPU
from tests.local.service_setup import CODE, ServiceSetup, never, serve
from tests.local.waiting import alive, until, wait_until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_a_server_that_dies_at_the_start_is_quoted(service_setup: ServiceSetup) -> None:
    command = ("sh", "-c", "echo loading; echo 'no such model: x' >&2; exit 3")
    with pytest.raises(ServiceError, match=r"(?s)before it accepted.*the model server ended with status 3.*such model"):
        serve(service_setup.options(command), never)
    assert service_setup.log() == [], "the proxy was never started"


def test_a_server_that_never_listens_is_ended_after_its_time(service_setup: ServiceSetup) -> None:
    with pytest.raises(ServiceError, match=r"(?s)did not accept a connection in 0.3 s.*thinking"):
        serve(service_setup.options(("sh", "-c", "echo thinking; exec sleep 60"), start_timeout_s=0.3), never)


def test_a_server_on_another_port_than_the_one_named_is_told_with_what_it_opened(service_setup: ServiceSetup) -> None:
    own = free_port()
    code = f"import os; os.environ['PORT'] = '{own}'\n" + CODE.replace("sys.argv[1]", "os.environ['PORT']")
    options = service_setup.options((sys.executable, "-c", code), start_timeout_s=1.0, server_port=free_port())
    with pytest.raises(
        ServiceError, match=rf"in 1 s on port \d+, which it was told; it listens on {own}: .*--server-port"
    ):
        serve(options, never)


@pytest.mark.parametrize(("status", "passed"), [(3, 3), (0, 1)])
def test_the_exit_status_of_a_server_that_ends_at_the_start_is_kept(
    service_setup: ServiceSetup, status: int, passed: int
) -> None:
    with pytest.raises(ServiceError) as failed:
        serve(service_setup.options(("sh", "-c", f"exit {status}")), never)
    assert failed.value.status == passed


def test_an_interpreter_that_cannot_be_started_again_is_told(
    service_setup: ServiceSetup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forbidden = tmp_path / "python"
    forbidden.write_text("")
    monkeypatch.setattr(sys, "executable", str(forbidden))
    with pytest.raises(ServiceError, match=r"cannot start .*python: Permission denied") as failed:
        serve(service_setup.options(("server",)), never)
    assert failed.value.status == 126


def test_a_proxy_that_dies_at_the_start_is_quoted_and_takes_the_server_along(service_setup: ServiceSetup) -> None:
    service = LocalService(service_setup.options(mood="dies"))

    async def main() -> None:
        async with service:
            pytest.fail("must not get here")

    with pytest.raises(ServiceError, match=r"(?s)the proxy ended with status 1.*cannot go on"):
        asyncio.run(main())
    assert service.server_status == 128 + signal.SIGTERM


def test_wait_says_how_the_model_server_ended(service_setup: ServiceSetup, tmp_path: Path) -> None:
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

    command = (sys.executable, "-c", doomed, "{port}", str(fate))
    serve(service_setup.options(command, ready_path="none"), scene)


def test_wait_says_when_the_proxy_is_gone(service_setup: ServiceSetup) -> None:
    async def scene(service: LocalService) -> None:
        (guardian,) = (process.pid for process in descendants(os.getpid()) if is_proxys_guardian(process.pid))
        os.kill(guardian, signal.SIGTERM)
        assert (await service.wait()).startswith("the proxy ended")

    serve(service_setup.options(), scene)


def is_proxys_guardian(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"tests.local.fake_proxy" in words and b"--" in words


def test_a_proxy_that_does_not_end_is_killed_after_the_grace_and_the_server_then_asked(
    service_setup: ServiceSetup,
) -> None:
    async def scene(service: LocalService) -> None:
        pass

    service = serve(service_setup.options(mood="never ends", grace_s=0.2), scene)
    assert service.server_status is not None


def test_kill_cuts_a_stop_short(service_setup: ServiceSetup) -> None:
    async def main() -> None:
        service = LocalService(service_setup.options(mood="never ends", grace_s=600.0))
        async with service:
            stopping = asyncio.create_task(service.stop())
            await until(lambda: service.stopping, "the stop began")
            service.kill()
            await stopping
        assert service.server_status == 128 + signal.SIGKILL

    asyncio.run(main())


def test_a_block_that_fails_leaves_nothing_behind(service_setup: ServiceSetup) -> None:
    async def scene(service: LocalService) -> None:
        raise RuntimeError("the user's own")

    before = {process.pid for process in descendants(os.getpid())}
    with pytest.raises(RuntimeError, match="the user's own"):
        serve(service_setup.options(), scene)
    assert {process.pid for process in descendants(os.getpid())} <= before


def test_a_cancelled_start_leaves_nothing_behind(service_setup: ServiceSetup) -> None:
    async def main() -> None:
        starting = asyncio.create_task(LocalService(service_setup.options(("sleep", "60"))).__aenter__())
        await until(lambda: any(process.pid for process in descendants(os.getpid())), "the server runs")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    before = {process.pid for process in descendants(os.getpid())}
    asyncio.run(main())
    assert {process.pid for process in descendants(os.getpid())} <= before
    assert service_setup.cpu is not None
    assert service_setup.cpu.closed


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.local.service_setup import ServiceSetup, never
from knative_sponge.local.runner import LocalService
async def main():
    async with LocalService(ServiceSetup(Path(sys.argv[1]), None).options()):
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
