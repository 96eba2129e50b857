"""A leader that hangs in a call to API server, kubelet, proxy or solver ends all the same, and leaves nothing open."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.informer import key_of
from knative_sponge.controller.kube.lease import HOLD_SHARE
from knative_sponge.controller.kube.resource import DEPLOYMENTS, NODES, PODS, REPLICA_SETS, REVISIONS
from knative_sponge.controller.process import Process
from knative_sponge.controller.sizing import sizer as sizer_module
from knative_sponge.controller.sizing.cpsat import CLOSING_S, Refiner
from knative_sponge.controller.sizing.memory_usage import Kubelets
from knative_sponge.errors import SettingError
from tests.controller.admission.webhook_kit import LOOPS
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.kube.wire_kit import LOCAL, Wire, run_on
from tests.controller.revision_kit import run, until
from tests.controller.sized_pod import owners_of, running
from tests.controller.sizing.node_kit import a_node, sizing
from tests.controller.sizing.test_cpsat import PATIENT, RULES, gone, unproven
from tests.controller.sizing.test_memory_usage import Kubelet, serving
from tests.controller.test_process import settings
from tests.local.fake_proxy import FakeProxy

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
        for resource in (REVISIONS, DEPLOYMENTS, REPLICA_SETS):
            api.put(resource, owners_of(pod)[resource.plural])
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
            assert sizer.cluster.pods_of(("default", "hello-00002"))
            assert not sizer.divider.pods

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
                await until(lambda: sizer.divider.pods)
            (pod,) = sizer.divider.pods.values()
            assert pod.resizer._closed

    run(body())
