"""How a local service ends: by itself, by a failure, by a signal; nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from knative_sponge.local.cpu.procfs import descendants
from knative_sponge.local.runner import LocalService, ServiceError
from tests.local.conditions import HAVE_V1, V1_CPU, alive, until, wait_until
from tests.local.runner_kit import CODE, Stage, never, serve


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


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.local.runner_kit import Stage, never
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
