"""One replica as a whole against an API server over HTTP, and as a program that is told to stop."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from knative_sponge.controller.cluster.control_token import Control, KeyRing, sized_nonce
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.lease import Elector
from knative_sponge.controller.kube.resource import (
    DEPLOYMENTS,
    LEASES,
    LIMITS,
    MUTATING_WEBHOOKS,
    NODES,
    POD_AUTOSCALERS,
    PODS,
    REPLICA_SETS,
    REVISIONS,
    SECRETS,
    SERVERLESS_SERVICES,
    VALIDATING_WEBHOOKS,
)
from knative_sponge.controller.process import Process
from knative_sponge.controller.sizing.sizer import Sizer
from knative_sponge.errors import NotLeader
from knative_sponge.settings import ControllerSettings
from knative_sponge.wire.http import ADMIN_PORT
from tests.controller.admission.pod_kit import IMAGE
from tests.controller.admission_kit import container, env_of, pod_with, question, stored_after
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.revision_kit import NAME, NAMESPACE, autoscaler, deployment, pod, revision, run, until
from tests.controller.sized_pod import owners_of, running
from tests.local.fake_proxy import FakeProxy

SPACE = "knative-sponge"


def settings(pod: str) -> ControllerSettings:
    return ControllerSettings(
        pod=pod,
        namespace=SPACE,
        proxy_image=IMAGE,
        webhook_port=0,
        health_port=0,
        metrics_port=0,
        lease_duration_s=3.0,
    )


def configure(api: FakeApi) -> None:
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        webhook = {"name": "services.knative-sponge.dev", "clientConfig": {"service": {"name": "webhook"}}}
        api.put(resource, {"metadata": {"name": "knative-sponge"}, "webhooks": [webhook]})


@asynccontextmanager
async def replica(
    api: FakeApi, pod: str = "autoscaler-0", admin_port: int = ADMIN_PORT
) -> AsyncIterator[tuple[Process, asyncio.Event]]:
    process = Process(
        settings(pod), Kube.at(api.url), random.Random(1), host="127.0.0.1", leaving_s=0.0, admin_port=admin_port
    )
    stop = asyncio.Event()
    task = asyncio.create_task(process.run(stop))
    try:
        await process.started.wait()
        yield process, stop
    finally:
        stop.set()
        await task


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def ready(process: Process) -> None:
    while (await get(process.health.port, "/readyz"))[0] != 200:
        await asyncio.sleep(0.02)


def test_a_replica_alone_makes_certificates_leads_and_reconciles() -> None:
    async def body() -> None:
        async with FakeApi() as api, replica(api) as (process, _):
            configure(api)
            api.put(DEPLOYMENTS, deployment())
            api.put(REVISIONS, revision())
            api.put(POD_AUTOSCALERS, autoscaler())
            await until(lambda: process.leads)
            await ready(process)
            assert api.get(SECRETS, "webhook-certs", SPACE) is not None
            await until(lambda: api.get(SERVERLESS_SERVICES, NAME, NAMESPACE) is not None)
            status, text = await get(process.metrics.port, "/metrics")
            assert status == 200
            assert "sponge_leader 1.0" in text
            assert "sponge_webhook_certificate_expiry_seconds" in text

    run(body())


def put_owned(api: FakeApi, pod: Any) -> None:
    """The pod, and what owns it."""
    owners = owners_of(pod)
    for resource in (REVISIONS, DEPLOYMENTS, REPLICA_SETS):
        api.put(resource, owners[resource.plural])
    api.put(PODS, pod)


def with_control(pod: Any, control: Control | None) -> Any:
    """A running pod that has been admitted with this."""
    proxy = container(pod, "queue-proxy")
    proxy["env"] = [one for one in proxy["env"] if not one["name"].startswith("SPONGE_CONTROL")]
    if control is not None:
        proxy["env"].append({"name": "SPONGE_CONTROL_TOKEN_SHA256", "value": control.digest})
        proxy["env"].append({"name": "SPONGE_CONTROL_KEY", "value": control.reference})
    pod["status"]["podIP"] = "127.0.0.1"
    return pod


def test_the_leader_shows_each_pod_its_token_and_a_copy_of_it_opens_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The pod has only the digest. A pod of another namespace with the same reference is shown something else."""

    async def body() -> None:
        async with FakeApi() as api:
            configure(api)
            api.put(NODES, {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}})
            key = base64.b64encode(b"k" * 32).decode()
            api.put(SECRETS, {"metadata": {"name": "control-keys", "namespace": SPACE}, "data": {"1": key}})
            ring = KeyRing({1: b"k" * 32})
            control = ring.mint("default", "n0nce")
            assert control is not None
            token = ring.token("default", control.reference)
            assert token is not None
            proxy, copier = FakeProxy(token, lambda _: None), FakeProxy(token, lambda _: None)
            await proxy.start()
            await copier.start(proxy.port, "127.0.0.2")
            put_owned(api, with_control(running(), control))
            copy = with_control(running(), control)
            copy["metadata"] |= {"namespace": "thief", "name": "copy", "uid": "u-2"}
            copy["status"]["podIP"] = "127.0.0.2"
            put_owned(api, copy)
            async with replica(api, admin_port=proxy.port):
                await until(lambda: proxy.listeners == 1 and "127.0.0.2 was not told" in caplog.text)
                assert copier.listeners == 0
            await proxy.close()
            await copier.close()

    run(body())


def test_a_pod_that_an_older_version_has_admitted_is_heard_with_the_token_in_it() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            configure(api)
            api.put(NODES, {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}})
            proxy = FakeProxy("t-1", lambda _: None)
            await proxy.start()
            pod = running()
            pod["status"]["podIP"] = "127.0.0.1"
            put_owned(api, pod)
            async with replica(api, admin_port=proxy.port):
                await until(lambda: proxy.listeners == 1)
            await proxy.close()

    run(body())


def test_a_pod_whose_key_is_read_later_is_heard_then(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with FakeApi() as api:
            configure(api)
            api.put(NODES, {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}})
            old, new = base64.b64encode(b"k" * 32).decode(), base64.b64encode(b"n" * 32).decode()
            api.put(SECRETS, {"metadata": {"name": "control-keys", "namespace": SPACE}, "data": {"1": old}})
            control = KeyRing({2: b"n" * 32}).mint("default", "n0nce")
            assert control is not None
            proxy = FakeProxy(KeyRing({2: b"n" * 32}).token("default", control.reference) or "", lambda _: None)
            await proxy.start()
            put_owned(api, with_control(running(), control))
            async with replica(api, admin_port=proxy.port):
                await until(lambda: "127.0.0.1 was not told" in caplog.text)
                assert proxy.listeners == 0
                api.change(SECRETS, "control-keys", SPACE, data={"1": old, "2": new})
                await until(lambda: proxy.listeners == 1)
            await proxy.close()

    run(body())


async def asked(process: Process, path: str, body: bytes) -> Any:
    """What the replica's webhook answers."""
    url = f"https://127.0.0.1:{process.webhook.port}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, ssl=False) as answer:
        return await answer.read()


def test_every_replica_admits_within_the_limits_and_so_it_does_when_they_change() -> None:
    """The webhook of any replica is asked, and only one of them leads."""

    async def body() -> None:
        async with FakeApi() as api, replica(api, "one") as (first, _), replica(api, "two") as (second, _):
            metadata = {"name": LIMITS.names[0], "namespace": SPACE}
            api.put(LIMITS, {"metadata": metadata, "data": {"default": "max-cores: 2"}})
            await ready(first)
            await ready(second)
            for limit in ("2", "3"):
                api.put(LIMITS, {"metadata": metadata, "data": {"default": f"max-cores: {limit}"}})
                for process in (first, second):
                    greedy = pod_with({"slo": "500ms", "min-cores": "32", "max-cores": "64"})
                    size = ""
                    while size != limit:
                        await asyncio.sleep(0.01)
                        stored = stored_after(greedy, await asked(process, "/mutate/pods", question(greedy)))
                        size = env_of(stored)["SPONGE_CORES"]
                        assert size in ("2", "3")

    run(body())


def test_a_replica_that_has_not_read_the_limits_is_not_ready_and_admits_with_what_a_pod_requests() -> None:
    async def body() -> None:
        async with FakeApi() as api:

            def no_limits(_method: str, path: str) -> None:
                if "/configmaps" in path and SPACE in path and "profiles" not in path:
                    raise Refused(403, "Forbidden")

            api.before = no_limits
            async with replica(api) as (process, _):
                await until(lambda: process.webhook.ready)
                status, text = await get(process.health.port, "/readyz")
                assert status == 503
                assert "has not read the limits" in text
                greedy = pod_with({"slo": "500ms", "min-cores": "32"})
                stored = stored_after(greedy, await asked(process, "/mutate/pods", question(greedy)))
                assert env_of(stored)["SPONGE_CORES"] == "100m"

    run(body())


def test_the_leader_knows_with_how_many_cores_a_pod_was_admitted_once_it_has_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Sizer] = []
    begin = Sizer.__init__

    def noted(self: Sizer, *parts: Any, **more: Any) -> None:
        made.append(self)
        begin(self, *parts, **more)

    monkeypatch.setattr(Sizer, "__init__", noted)

    async def body() -> None:
        async with FakeApi() as api:
            configure(api)
            api.put(NODES, {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}})
            old, new = base64.b64encode(b"k" * 32).decode(), base64.b64encode(b"n" * 32).decode()
            api.put(SECRETS, {"metadata": {"name": "control-keys", "namespace": SPACE}, "data": {"1": old}})
            put_owned(
                api, with_control(running(), KeyRing({2: b"n" * 32}).mint("default", sized_nonce(0.05, "r" * 32)))
            )
            async with replica(api):

                def admitted() -> float | None:
                    pods = made[0].divider.pods if made else {}
                    return next((pod.admitted for pod in pods.values()), None)

                await until(lambda: admitted() == 0.0)
                api.change(SECRETS, "control-keys", SPACE, data={"1": old, "2": new})
                await until(lambda: admitted() == 0.05)

    run(body())


def test_a_replica_without_certificate_is_alive_but_not_ready() -> None:
    async def body() -> None:
        async with FakeApi() as api:

            def no_secrets(_method: str, path: str) -> None:
                if "/secrets" in path:
                    raise Refused(403, "Forbidden")

            api.before = no_secrets
            async with replica(api) as (process, _):
                await until(lambda: process.leads)
                assert (await get(process.health.port, "/healthz"))[0] == 200
                status, text = await get(process.health.port, "/readyz")
                assert status == 503
                assert "no certificate" in text

    run(body())


def test_only_the_leader_writes_and_the_next_one_takes_over_when_it_leaves() -> None:
    async def body() -> None:
        async with FakeApi() as api, replica(api, "one") as (first, stop):
            await until(lambda: first.leads)
            async with replica(api, "two") as (second, _):
                await ready(second)
                assert not second.leads
                stop.set()
                await until(lambda: second.leads)
                assert not first.leads
        lease = api.get(LEASES, "autoscaler", SPACE)
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == ""

    run(body())


def test_nodes_are_followed_once_by_each_replica_however_often_it_leads() -> None:
    followed = 0

    async def body() -> None:
        async with FakeApi() as api:

            def count(method: str, path: str) -> None:
                nonlocal followed
                followed += (method, path) == ("GET", NODES.path())

            api.before = count
            api.put(NODES, {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}})
            put_owned(api, running())
            async with replica(api) as (process, _):
                await until(lambda: divides(process))
                lease = api.get(LEASES, "autoscaler", SPACE)
                assert lease is not None
                lease["spec"] |= {"holderIdentity": "another", "leaseDurationSeconds": 1}
                api.put(LEASES, lease)
                await until(lambda: not process.leads and not divides(process))
                await until(lambda: divides(process))
                assert followed == 2, "a list and a watch"
                assert len(process._nodes._subscribers) == 1, "who led before is not told"

    run(body())


def divides(process: Process) -> bool:
    """Does it lead, and know the node?"""
    return b'"name":"n1"' in (process._board.as_json() or b"")


def test_all_writes_of_the_leader_but_the_lease_pass_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_self: Elector) -> float:
        raise NotLeader("held back")

    monkeypatch.setattr(Elector, "fence", closed)

    async def body() -> None:
        async with FakeApi() as api, replica(api) as (process, _):
            configure(api)
            api.put(DEPLOYMENTS, deployment())
            api.put(REVISIONS, revision())
            api.put(POD_AUTOSCALERS, autoscaler())
            api.put(PODS, pod("p", annotations={"knative-sponge.dev/slo": "1s"}))
            tried = ""
            while 'sponge_reconciles_total{outcome="error"} 0.0' in tried or 'why="webhook-missed"} 1.0' not in tried:
                await asyncio.sleep(0.02)
                _, tried = await get(process.metrics.port, "/metrics")
            assert all("/leases" in path for _, path in api.writes())

    run(body())


def test_a_part_that_dies_ends_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(_self: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("knative_sponge.controller.admission.stock_proxy_report.Reporter.run", dies)

    async def body() -> None:
        async with FakeApi() as api:
            process = Process(settings("one"), Kube.at(api.url), random.Random(1), host="127.0.0.1", leaving_s=0.0)
            with pytest.raises(ExceptionGroup) as caught:
                await process.run(asyncio.Event())
            assert caught.group_contains(ZeroDivisionError)
            lease = api.get(LEASES, "autoscaler", SPACE)
            assert lease is not None
            assert lease["spec"]["holderIdentity"] == ""

    run(body())


def test_the_program_stops_in_order_on_sigterm(tmp_path: Path) -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kubeconfig = tmp_path / "config"
            kubeconfig.write_text(
                yaml.safe_dump(
                    {
                        "current-context": "c",
                        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
                        "users": [{"name": "u", "user": {"token": "t"}}],
                    }
                )
            )
            env = {
                **os.environ,
                "KUBECONFIG": str(kubeconfig),
                "POD_NAME": "one",
                "POD_NAMESPACE": SPACE,
                "SPONGE_QUEUE_PROXY_IMAGE": "queue-proxy:test",
                "SPONGE_WEBHOOK_PORT": "0",
                "SPONGE_HEALTH_PORT": "0",
                "SPONGE_METRICS_PORT": "0",
            }
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "knative_sponge.controller", env=env, stderr=asyncio.subprocess.PIPE
            )
            await until(lambda: api.get(LEASES, "autoscaler", SPACE) is not None)
            await until(lambda: api.get(SECRETS, "webhook-certs", SPACE) is not None)
            program.send_signal(signal.SIGTERM)
            _, said = await program.communicate()
            assert program.returncode == 0, said.decode()
            lease = api.get(LEASES, "autoscaler", SPACE)
            assert lease is not None
            assert lease["spec"]["holderIdentity"] == ""
            assert "Traceback" not in said.decode()

    run(body())


def test_the_program_says_which_setting_is_missing() -> None:
    async def body() -> None:
        env = {key: text for key, text in os.environ.items() if not key.startswith("POD_")}
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "knative_sponge.controller", env=env, stderr=asyncio.subprocess.PIPE
        )
        _, said = await program.communicate()
        assert program.returncode == 1
        assert b"POD_NAME" in said
        assert b"Traceback" not in said

    run(body())


def test_the_program_says_that_no_cluster_is_configured(tmp_path: Path) -> None:
    async def body() -> None:
        env = {key: text for key, text in os.environ.items() if key != "KUBERNETES_SERVICE_HOST"}
        env |= {"POD_NAME": "one", "POD_NAMESPACE": SPACE, "SPONGE_QUEUE_PROXY_IMAGE": "proxy"}
        env |= {"KUBECONFIG": str(tmp_path / "none")}
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "knative_sponge.controller", env=env, stderr=asyncio.subprocess.PIPE
        )
        _, said = await program.communicate()
        assert program.returncode == 1
        assert f"KUBECONFIG: '{tmp_path / 'none'}' is not allowed".encode() in said
        assert b"Traceback" not in said

    run(body())
