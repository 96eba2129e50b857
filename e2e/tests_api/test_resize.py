"""`pods/resize` as a real API server takes it: our patches fit every kind of pod; what is refused is told and left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from e2e.api.client import Client, Object
from e2e.api.node import NAMESPACE, USER, a_node, pod_of
from e2e.api.replica import our_client, replica
from e2e.api.server import Server
from knative_sponge.controller.cluster.pod import resize_body
from knative_sponge.controller.kube.client import Patch
from knative_sponge.controller.kube.resource import POD_RESIZE
from tests.controller.admission_kit import container
from tests.controller.revision_kit import until
from tests.controller.sized_pod import viewed

_LONGEST_S = 30.0


def _equal() -> Object:
    return pod_of(0.5)


def _burst() -> Object:
    pod = pod_of(0.5, cpu_limit="burst", max_cores="2")
    container(pod, USER)["resources"]["limits"]["cpu"] = "2"
    return pod


def _without_limit() -> Object:
    pod = pod_of(0.5)
    del container(pod, USER)["resources"]["limits"]["cpu"]
    return pod


def _burst_without_limit() -> Object:
    pod = pod_of(0.5, cpu_limit="burst")
    del container(pod, USER)["resources"]["limits"]["cpu"]
    return pod


def _almost_guaranteed() -> Object:
    """All requests and limits are equal but this CPU's: a step that makes it so would change the QoS class."""
    pod = _guaranteed()
    container(pod, USER)["resources"]["limits"]["cpu"] = "501m"
    return pod


def _guaranteed() -> Object:
    pod = pod_of(0.5)
    amounts = {"cpu": "25m", "memory": "64Mi"}
    container(pod, "queue-proxy")["resources"] = {"requests": dict(amounts), "limits": dict(amounts)}
    container(pod, USER)["resources"]["requests"]["memory"] = container(pod, USER)["resources"]["limits"]["memory"]
    return pod


KINDS: dict[str, tuple[Callable[[], Object], str, dict[float, tuple[str, str | None]]]] = {
    "equal": (_equal, "Burstable", {1.5: ("1500m", "1500m"), 0.3: ("300m", "300m")}),
    "burst": (_burst, "Burstable", {1.5: ("1500m", "2"), 0.3: ("300m", "2"), 3.0: ("3", "3")}),
    "without limit": (_without_limit, "Burstable", {1.5: ("1500m", "1500m"), 0.3: ("300m", "300m")}),
    "burst without limit": (_burst_without_limit, "Burstable", {1.5: ("1500m", None), 0.3: ("300m", None)}),
    "guaranteed": (_guaranteed, "Guaranteed", {1.5: ("1500m", "1500m"), 0.3: ("300m", "300m")}),
    "almost guaranteed": (_almost_guaranteed, "Burstable", {1.5: ("1500m", "1501m"), 0.3: ("300m", "301m")}),
}
"""How a pod is made, its QoS class, and the CPU request and limit that each size gives."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pod_takes_every_size_and_keeps_its_class(server: Server, kind: str) -> None:
    make, qos, sizes = KINDS[kind]

    async def body() -> None:
        async with Client(server.url, server.trust(admin=True)) as admin, a_node(admin, 4.0) as node:
            pod = await node.put(make(), "a", "127.0.1.1")
            assert pod["status"]["qosClass"] == qos
            async with our_client(server, admin) as ours:
                for cores, (request, limit) in sizes.items():
                    change = resize_body(viewed(pod), cores)
                    pod = await ours.patch(POD_RESIZE, "a", change, NAMESPACE, kind=Patch.STRATEGIC)
                    resources = container(pod, USER)["resources"]
                    assert resources["requests"]["cpu"] == request
                    assert resources["limits"].get("cpu") == limit
                    assert pod["status"]["qosClass"] == qos

    asyncio.run(body())


def _windows() -> Object:
    """A pod that the server resizes never."""
    pod = pod_of(0.5)
    pod["spec"]["os"] = {"name": "windows"}
    for one in (pod["spec"], *pod["spec"]["containers"]):
        one.pop("securityContext", None)
    return pod


async def _limit(admin: Client) -> None:
    """No container of the namespace may have more than one core."""
    limits = {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "one-core"}, "spec": limits}
    await admin("POST", f"/api/v1/namespaces/{NAMESPACE}/limitranges", body)


REFUSALS: dict[str, tuple[int, str, Callable[[], Object], bool, float]] = {
    "a pod that cannot be resized": (422, "windows", _windows, False, 0.5),
    "a limit of the namespace": (403, "maximum cpu usage per Container is 1", _equal, True, 1.0),
}
"""The server's status and words, how the pod is made, whether a LimitRange holds, and the size that it ends with."""


@pytest.mark.parametrize("why", REFUSALS)
def test_a_refused_size_is_reported_once_and_the_proxy_is_not_fooled(server: Server, why: str) -> None:
    status, words, make, limited, end = REFUSALS[why]

    async def body() -> None:
        async with (
            asyncio.timeout(_LONGEST_S),
            Client(server.url, server.trust(admin=True)) as admin,
            a_node(admin, 4.0) as node,
        ):
            await node.add("a", 0.5, make())
            await node.add("b", 0.5)
            if limited:
                await _limit(admin)
            async with replica(server, node) as one:
                await until(lambda: node.proxies["a"].listeners and node.proxies["b"].listeners)
                node.want("a", 1.5)
                await until(lambda: one.way.writes("/resize") and one.way.writes("/resize")[0].status)
                assert one.way.writes("/resize")[0].status == status
                await until(lambda: one.way.writes("/events") and one.way.writes("/events")[-1].status)
                (event,) = await node.events()
                assert event["reason"] == "ResizeFailed"
                assert words in event["note"]
                # It is not asked for again: the loop goes on, and other pods with it.
                node.want("b", 0.8)
                await until(lambda: node.in_force("b") == 0.8)
                await until(lambda: node.in_force("a") == end)
                assert one.sizes("a") == ([1.5] if end == 0.5 else [1.5, end])
                assert {cores for phase, cores in node.proxies["a"].told if phase != "demand"} == {0.5, end}

    asyncio.run(body())
