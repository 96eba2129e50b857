"""What the leader holds of a cluster, on objects that stock Knative made."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from knative_sponge.controller.cluster.capacity import ClusterCapacity
from knative_sponge.controller.cluster.node import kept_of_node
from knative_sponge.controller.cluster.watches import Nodes, Watches
from knative_sponge.controller.kube.api_json import read_object
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import DEPLOYMENTS, NODES, PODS, REVISIONS, Object
from tests.controller.admission_kit import pod_with
from tests.controller.apiserver import FakeApi
from tests.controller.kube.test_lease import ended
from tests.controller.revision_kit import deployment, revision, run, until
from tests.controller.sized_pod import Copied, running

A_NODE = {"allocatable": {"cpu": "4", "memory": "8Gi"}}
LABELS = {f"feature.node.kubernetes.io/cpu-cpuid.{name}": f"level {name}" for name in ("AVX512VNNI", "AMXBF16")}
MANAGERS = [{"manager": "kubelet", "fieldsV1": {"f:spec": {}}}]


def whole_objects() -> tuple[Object, Object, Object]:
    """A Revision, its Deployment and its pod with all that is in them."""
    pod = pod_with()
    pod["metadata"] |= {"name": "p", "managedFields": MANAGERS}
    pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "user-container", "ready": True}]}
    template = {"template": {"spec": pod["spec"]}}
    scaled = deployment(ready=1)
    scaled["spec"] |= template
    known = revision()
    known["metadata"]["managedFields"] = MANAGERS
    return known | {"spec": pod["spec"]}, scaled, pod


def test_of_pods_deployments_and_revisions_only_what_is_read_is_held() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            known, scaled, pod = whole_objects()
            api.put(REVISIONS, known)
            kube = Kube.at(api.url)
            watches = Watches(kube, "knative-serving", random.Random(1), Nodes(kube, random.Random(1)))
            tasks = [asyncio.create_task(part.run()) for part in (watches.nodes, watches)]
            await watches.wait()
            # One was listed; these are watched.
            api.put(DEPLOYMENTS, scaled)
            api.put(PODS, pod)
            await until(lambda: watches.pods.objects and watches.deployments.objects)
            held: list[Any] = [
                *watches.revisions.objects.values(),
                *watches.deployments.objects.values(),
                *watches.pods.objects.values(),
            ]
            text = json.dumps(held, default=repr)
            assert "managedFields" not in text
            # The serving container's, by which profiles are known, and the queue-proxy's, which has to be ours.
            assert text.count('"image"') == 2
            assert '"env"' not in text
            _, seen_deployment, seen_pod = held
            assert seen_deployment["spec"]["replicas"] == seen_deployment["status"]["readyReplicas"] == 1
            assert [one["name"] for one in seen_pod["spec"]["containers"]] == ["user-container", "queue-proxy"]
            assert seen_pod["status"] == {"phase": "Running", "containerStatuses": [{"name": "user-container"}]}
            assert seen_pod["metadata"]["annotations"]["knative-sponge.dev/slo"] == "500ms"
            await ended(*tasks)
            await kube.close()

    run(body())


def test_an_object_that_cannot_be_read_costs_the_others_nothing() -> None:
    """Listed or watched, it must not end the leader's work."""

    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            watches = Watches(kube, "knative-serving", random.Random(1), Nodes(kube, random.Random(1)))
            cluster = ClusterCapacity(watches.pods, watches.nodes, Copied(), lambda _node: None)
            put_broken(api, "listed")
            tasks = [asyncio.create_task(part.run()) for part in (watches.nodes, watches)]
            await watches.wait()
            put_broken(api, "watched")
            api.put(NODES, {"metadata": {"name": "sound"}, "status": {"allocatable": {"cpu": "4"}}})
            api.put(PODS, running())
            await until(lambda: cluster.node("sound") and cluster.pods_of(("default", "hello-00002")))
            await until(lambda: {name for _, name in watches.pods.objects} >= {"listed-theirs", "watched-ours"})
            assert len(watches.nodes.objects) == 3
            assert not any(task.done() for task in tasks)
            await ended(*tasks)
            await kube.close()

    run(body())


def test_nodes_are_known_to_who_comes_late_and_not_told_to_who_has_gone() -> None:
    """The process follows them all the time, its parts use them while it leads."""

    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            nodes = Nodes(kube, random.Random(1))
            task = asyncio.create_task(nodes.run())
            put_node(api, "n1")
            await nodes.synced.wait()
            touched: list[str] = []
            watches = Watches(kube, "knative-serving", random.Random(1), nodes)
            cluster = ClusterCapacity(watches.pods, watches.nodes, Copied(), touched.append)
            assert cluster.node("n1") is not None
            put_node(api, "n2")
            await until(lambda: cluster.node("n2"))
            assert touched == ["n2"], "whoever divides is made after the cluster"
            nodes.forget_subscribers()
            put_node(api, "n3")
            await until(lambda: nodes.get(("", "n3")))
            assert cluster.node("n3") is None
            await ended(task)
            await kube.close()

    run(body())


def test_texts_that_are_labels_of_all_nodes_are_held_once() -> None:
    texts = [
        json.dumps({"metadata": {"name": name, "resourceVersion": "1", "labels": LABELS}, "status": A_NODE}).encode()
        for name in ("n1", "n2")
    ]
    one, other = (kept_of_node(read_object(text))["view"].labels for text in texts)
    assert one == other == LABELS
    assert {id(text) for pair in one.items() for text in pair} == {id(text) for pair in other.items() for text in pair}


def put_node(api: FakeApi, name: str) -> None:
    api.put(NODES, {"metadata": {"name": name}, "status": A_NODE})


def put_broken(api: FakeApi, name: str) -> None:
    """A node, a pod of a revision and another one with amounts that are none."""
    api.put(NODES, {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "four"}}})
    ours = running()
    ours["metadata"]["name"] = f"{name}-ours"
    ours["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1.5 cores"
    api.put(PODS, ours)
    spec = {"nodeName": "n1", "containers": [{"name": "c", "resources": {"requests": {"cpu": {}}}}]}
    api.put(PODS, {"metadata": {"name": f"{name}-theirs", "namespace": "x"}, "spec": spec})
