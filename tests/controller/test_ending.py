"""The leader's work ends with its leading, and a replica ends when it is told to, whatever hangs at that moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from knative_sponge.controller import __main__ as program
from knative_sponge.controller import process as process_module
from knative_sponge.controller.kube import client as kube_module
from knative_sponge.controller.kube import watchdog
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.lease import Elector
from knative_sponge.controller.kube.resource import EVENTS, PODS
from knative_sponge.controller.process import Process
from knative_sponge.errors import KubeUnreachable
from tests.controller.admission.webhook_kit import LOOPS, PATIENCE_S
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.kube.wire_kit import LOCAL, Wire, run_on
from tests.controller.revision_kit import run, until
from tests.controller.test_process import SPACE, settings

ROOT = Path(__file__).parent.parent.parent


# One call


@pytest.mark.parametrize("loop", LOOPS)
def test_a_call_that_is_cancelled_in_the_very_turn_in_which_its_time_is_over_is_cancelled(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a starved machine, where a loop comes late to everything. aiohttp's own time limit swallows that cancellation."""
    monkeypatch.setattr(kube_module, "_CALL_S", 0.2)

    async def body() -> None:
        async with Wire() as wire:
            wire.cut = True
            kube = Kube.at(f"http://{LOCAL}:{wire.port}")

            async def work() -> None:
                while True:
                    with contextlib.suppress(KubeUnreachable):
                        await kube.list(PODS)

            working = asyncio.create_task(work())
            await wire.asked.wait()
            asyncio.get_running_loop().call_later(0.3, working.cancel)
            time.sleep(0.5)  # noqa: ASYNC251 - both are due now
            await asyncio.wait([working])
            assert working.cancelled()
            await kube.close()

    run_on(loop, body())


def test_no_write_is_under_way_for_longer_than_its_sender_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_module, "_CALL_S", 3600.0)

    async def body() -> None:
        async with Wire() as wire:
            wire.cut = True
            kube = Kube.at(f"http://{LOCAL}:{wire.port}")
            with pytest.raises(KubeUnreachable):
                await kube.fenced(lambda: 0.05).create(EVENTS, {"metadata": {"name": "e"}}, "default")
            assert wire.asked.is_set()
            await kube.close()

    run(body())


# The leader's work


class Stubborn:
    """Work that goes on when it is cancelled, until it is released."""

    def __init__(self) -> None:
        self.runs = False
        self._released = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def release(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def __call__(self) -> None:
        self.runs = True
        while not self._released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._released.wait()


@pytest.mark.parametrize("told", [False, True], ids=["the lease is lost", "the replica is told to stop"])
def test_work_that_does_not_end_in_time_ends_the_process_with_a_line_that_names_it(
    told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube, work = Kube.at(api.url), Stubborn()
            statuses: list[int] = []

            def end(status: int) -> None:
                statuses.append(status)
                work.release()

            elector = Elector(kube, "one", SPACE, "autoscaler", 1.5, end)
            electing = asyncio.create_task(elector.run(work), name="electing")
            await until(lambda: work.runs)

            def unavailable(_method: str, _path: str) -> None:
                raise Refused(503, "ServiceUnavailable")

            if told:
                electing.cancel()
            else:
                api.before = unavailable
            await until(lambda: statuses)
            assert statuses == [1]
            electing.cancel()
            await asyncio.gather(electing, return_exceptions=True)
            await kube.close()

    run(body())
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "CRITICAL")
    assert "the leader's work did not end" in line
    assert "electing" in line


class FullPipe(logging.Handler):
    """Takes no line for a long time. A handler's lock is held while it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.read = threading.Event()
        self.waited: list[bool] = []
        """Whether somebody read in the end, for each line."""

    def emit(self, _record: logging.LogRecord) -> None:
        self.waited.append(self.read.wait(PATIENCE_S))


def test_work_that_hangs_in_the_log_ends_the_process_without_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_TOLD_S", 0.1)
    pipe = FullPipe()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        pipe.read.set()

    async def body() -> None:
        with watchdog.must_end("it", 0.05, end):
            logging.getLogger().error("and the loop is blocked")

    logging.getLogger().addHandler(pipe)
    try:
        asyncio.run(body())
    finally:
        logging.getLogger().removeHandler(pipe)
    assert pipe.waited[0]
    assert statuses == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_work_that_hangs_ends_the_process_even_if_nobody_can_say_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_loop: object) -> None:
        raise RuntimeError("Set changed size during iteration")

    async def body() -> None:
        statuses: list[int] = []
        with watchdog.must_end("it", 0.05, statuses.append):
            await until(lambda: statuses)
        assert statuses == [1]

    monkeypatch.setattr(asyncio, "all_tasks", fails)
    run(body())


# The replica


def test_a_replica_that_does_not_come_to_its_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "ENDING_S", 0.2)

    async def body() -> None:
        async with FakeApi() as api:
            released = asyncio.Event()
            statuses: list[int] = []
            loop = asyncio.get_running_loop()

            def end(status: int) -> None:
                statuses.append(status)
                loop.call_soon_threadsafe(released.set)

            process = Process(settings("one"), Kube.at(api.url), random.Random(1), host=LOCAL, leaving_s=0.0, end=end)
            stops: Callable[[], Any] = process.metrics.stop

            async def hangs() -> None:
                await released.wait()
                await stops()

            monkeypatch.setattr(process.metrics, "stop", hangs)
            stop = asyncio.Event()
            task = asyncio.create_task(process.run(stop))
            await process.started.wait()
            stop.set()
            await task
            assert statuses == [1]

    run(body())


HUNG = {
    "its loop is blocked": "time.sleep(60)",
    "a task does not end": "await asyncio.shield(asyncio.Event().wait())",
}


@pytest.mark.parametrize("hung", HUNG)
def test_a_program_that_hangs_exits_with_1_after_sigterm_and_says_where_it_stood(hung: str) -> None:
    script = f"""
import asyncio, os, sys, time
from knative_sponge.controller import __main__ as program

class Process:
    def __init__(self, *_): ...
    async def run(self, stop):
        print("ready", flush=True)
        while True:
            try:
                {HUNG[hung]}
            except asyncio.CancelledError:
                pass

async def connect():
    return None

program.LAST_S, program.Process, program.Kube.connect = 0.2, Process, connect
sys.exit(program.main())
"""
    env = {**os.environ, "POD_NAME": "one", "POD_NAMESPACE": SPACE, "SPONGE_QUEUE_PROXY_IMAGE": "image"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.send_signal(signal.SIGTERM)
        _, said = started.communicate(timeout=30)
    assert started.returncode == 1
    assert "Timeout" in said
    assert "most recent call first" in said


def test_kubernetes_waits_longer_than_a_replica_takes_to_end() -> None:
    (deployment,) = (
        each
        for each in yaml.safe_load_all((ROOT / "manifests/base/deployment.yaml").read_text())
        if each["kind"] == "Deployment"
    )
    grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert process_module.ENDING_S < program.LAST_S < grace_s
