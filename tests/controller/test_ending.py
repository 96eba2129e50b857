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
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from knative_sponge.controller import __main__ as program
from knative_sponge.controller import kube as kube_module
from knative_sponge.controller import lastresort
from knative_sponge.controller import process as process_module
from knative_sponge.controller import sizer as sizer_module
from knative_sponge.controller.cpsat import CLOSING_S, Refiner
from knative_sponge.controller.informer import key_of
from knative_sponge.controller.kube import Kube
from knative_sponge.controller.kubelet import Kubelets
from knative_sponge.controller.lease import HOLD_SHARE, Elector
from knative_sponge.controller.process import Process
from knative_sponge.controller.resource import EVENTS, NODES, PODS, REVISIONS
from knative_sponge.errors import KubeUnreachable, SettingError
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.node_kit import a_node, sizing
from tests.controller.revision_kit import run, until
from tests.controller.sized_pod import running
from tests.controller.test_cpsat import PATIENT, RULES, gone, unproven
from tests.controller.test_kubelet import Kubelet, serving
from tests.controller.test_process import SPACE, settings
from tests.controller.webhook_kit import LOOPS, PATIENCE_S
from tests.local.fake_proxy import FakeProxy

ROOT = Path(__file__).parent.parent.parent
LOCAL = "127.0.0.1"


class Wire:
    """A port in front of another one. While it is cut, it takes connections and bytes and gives nothing back."""

    def __init__(self, port: int = 0) -> None:
        self.cut = False
        self.asked = asyncio.Event()
        """Set when something was sent into a cut wire."""
        self.port = 0
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, LOCAL, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        back: asyncio.Task[None] | None = None
        try:
            while data := await reader.read(65536):
                if self.cut:
                    self.asked.set()
                    continue
                if there is None:
                    answers, there = await asyncio.open_connection(LOCAL, self._to)
                    back = asyncio.create_task(self._return(answers, writer))
                there.write(data)
        except OSError:
            pass
        finally:
            if back is not None:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
            for each in (there, writer):
                if each is not None:
                    each.transport.abort()

    async def _return(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await answers.read(65536):
            if not self.cut:
                writer.write(data)
        writer.close()


def run_on(loop: str, body: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await body

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


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
    monkeypatch.setattr(lastresort, "_TOLD_S", 0.1)
    pipe = FullPipe()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        pipe.read.set()

    async def body() -> None:
        with lastresort.must_end("it", 0.05, end):
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
        with lastresort.must_end("it", 0.05, statuses.append):
            await until(lambda: statuses)
        assert statuses == [1]

    monkeypatch.setattr(asyncio, "all_tasks", fails)
    run(body())


HANGS = ["API server", "kubelet", "proxy"]


@asynccontextmanager
async def leader(hangs: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A replica that leads and sizes a pod: (process, task, stop, cut the API server's wire)."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(FakeApi())
        wire = await stack.enter_async_context(Wire(int(api.url.rpartition(":")[2])))
        kubelet = await stack.enter_async_context(serving(Kubelet(folder)))
        kubelet.stalls = hangs == "kubelet"
        at = kubelet.reader._port
        monkeypatch.setattr(sizer_module, "Kubelets", lambda: Kubelets(folder, at))
        silent = await stack.enter_async_context(Wire())
        silent.cut = True
        proxy = FakeProxy("t-1", lambda _event: None)
        await proxy.start()
        stack.push_async_callback(proxy.close)
        pod = running(max_memory="1Gi")
        pod["status"]["podIP"] = LOCAL
        status = {"allocatable": {"cpu": "4", "memory": "8Gi"}, "addresses": [{"type": "InternalIP", "address": LOCAL}]}
        api.put(NODES, {"metadata": {"name": "n1"}, "status": status})
        api.put(REVISIONS, {"metadata": {"name": "hello-00002", "namespace": "default"}})
        api.put(PODS, pod)
        process = Process(
            settings("one"),
            Kube.at(f"http://{LOCAL}:{wire.port}"),
            random.Random(1),
            host=LOCAL,
            leaving_s=0.0,
            admin_port=silent.port if hangs == "proxy" else proxy.port,
            end=lambda _status: pytest.fail("the last resort"),
        )
        stop = asyncio.Event()
        task = asyncio.create_task(process.run(stop))
        await process.started.wait()
        await until(lambda: process._board.as_json() not in (None, b""))
        if hangs == "kubelet":
            await until(lambda: kubelet.tokens)
        elif hangs == "proxy":
            await silent.asked.wait()
        else:
            await until(lambda: proxy.listeners)

        def cut() -> None:
            wire.cut = True

        try:
            yield process, task, stop, cut
        finally:
            stop.set()
            await task


def leads(process: Process) -> bool:
    return b"sponge_leader 1.0" in process._metrics.render()


@pytest.mark.parametrize("hangs", HANGS)
def test_without_its_lease_a_leader_stops_working_whatever_hangs(
    hangs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with leader(hangs, tmp_path, monkeypatch) as (process, _, _, cut):
            assert leads(process)
            cut()
            await until(lambda: not leads(process))
            assert not process.leads

    run(body())


@pytest.mark.parametrize("hangs", HANGS)
def test_a_leader_that_is_told_to_stop_ends_whatever_hangs(
    hangs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with leader(hangs, tmp_path, monkeypatch) as (_, task, stop, cut):
            if hangs == "API server":
                cut()
            stop.set()
            await task

    run(body())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("asked", [False, True], ids=["at rest", "while it is asked"])
def test_a_solver_that_was_stopped_holds_up_nothing(asked: bool, loop: str) -> None:
    async def body() -> None:
        solver = Refiner(PATIENT)
        claims, capacity, greedy = unproven()
        await solver.refine(claims, capacity, RULES, greedy)
        pid = solver.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        asking = asyncio.create_task(solver.refine(claims, capacity, RULES, greedy)) if asked else None
        await asyncio.sleep(0)
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await solver.close()
        assert gone(pid)

    run_on(loop, body())


def test_a_solver_that_is_killed_and_stays_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stays(_process: object) -> None:
        await asyncio.Event().wait()

    async def body() -> None:
        solver = Refiner(PATIENT)
        claims, capacity, greedy = unproven()
        await solver.refine(claims, capacity, RULES, greedy)
        pid = solver.pid
        assert pid is not None
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.subprocess.Process, "wait", stays)
            await solver.close()
        await until(lambda: gone(pid))

    run(body())


def test_a_solver_that_stays_leaves_the_rest_of_the_work_time_to_end_with_the_shortest_lease() -> None:
    shortest_s = 3.0
    with pytest.raises(SettingError):
        replace(settings("one"), lease_duration_s=shortest_s - 0.1)
    assert settings("one").lease_duration_s == shortest_s
    ending_s = shortest_s * (1 - HOLD_SHARE)
    assert ending_s / 2 >= CLOSING_S


def test_a_pod_that_is_told_of_while_the_work_ends_gets_no_hand_that_nobody_closes() -> None:
    async def body() -> None:
        async with a_node(4.0) as node:
            async with sizing(node) as sizer:
                await until(node.watches.nodes.synced.is_set)
            pod = running()
            pod["status"]["podIP"] = LOCAL
            node.watches.pods._put(key_of(pod), node.watches.pods._keep(pod))
            assert sizer.cluster.pods
            assert not sizer.divider.hands

    run(body())


def test_hands_that_were_there_before_everything_was_listed_are_closed_too() -> None:
    async def body() -> None:
        async with a_node(4.0) as node:
            await node.add("a", 0.5, ip=LOCAL)

            def refuse(_method: str, path: str) -> None:
                if path.endswith("/nodes"):
                    raise Refused(503, "ServiceUnavailable")

            node.api.before = refuse
            async with sizing(node) as sizer:
                await until(lambda: sizer.divider.hands)
            (hand,) = sizer.divider.hands.values()
            assert hand._closed

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
