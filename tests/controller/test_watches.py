"""What the leader holds of a cluster, on objects that stock Knative made."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from knative_sponge.controller.cluster import Cluster
from knative_sponge.controller.kube import Kube
from knative_sponge.controller.resource import DEPLOYMENTS, NODES, PODS, REVISIONS, Object
from knative_sponge.controller.watches import Watches
from tests.controller.admission import pod_with
from tests.controller.apiserver import FakeApi
from tests.controller.revision_kit import deployment, revision, run, until
from tests.controller.sized_pod import running

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
            watches = Watches(kube, "knative-serving", random.Random(1))
            task = asyncio.create_task(watches.run())
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
            assert text.count('"image"') == 1  # the serving container's, by which profiles are known
            assert '"env"' not in text
            _, seen_deployment, seen_pod = held
            assert seen_deployment["spec"]["replicas"] == seen_deployment["status"]["readyReplicas"] == 1
            assert [one["name"] for one in seen_pod["spec"]["containers"]] == ["user-container", "queue-proxy"]
            assert seen_pod["status"] == {"phase": "Running", "containerStatuses": [{"name": "user-container"}]}
            assert seen_pod["metadata"]["annotations"]["knative-sponge.dev/slo"] == "500ms"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await kube.close()

    run(body())


def test_an_object_that_cannot_be_read_costs_the_others_nothing() -> None:
    """Listed or watched, it must not end the leader's work."""

    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            watches = Watches(kube, "knative-serving", random.Random(1))
            cluster = Cluster(watches.pods, watches.nodes, lambda _node: None)
            put_broken(api, "listed")
            task = asyncio.create_task(watches.run())
            await watches.wait()
            put_broken(api, "watched")
            api.put(NODES, {"metadata": {"name": "sound"}, "status": {"allocatable": {"cpu": "4"}}})
            api.put(PODS, running())
            await until(lambda: cluster.node("sound") and cluster.pods)
            await until(lambda: {name for _, name in watches.pods.objects} >= {"listed-theirs", "watched-ours"})
            assert len(watches.nodes.objects) == 3
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await kube.close()

    run(body())


def put_broken(api: FakeApi, name: str) -> None:
    """A node, a pod of a revision and another one with amounts that are none."""
    api.put(NODES, {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "four"}}})
    ours = running()
    ours["metadata"]["name"] = f"{name}-ours"
    ours["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1.5 cores"
    api.put(PODS, ours)
    spec = {"nodeName": "n1", "containers": [{"name": "c", "resources": {"requests": {"cpu": {}}}}]}
    api.put(PODS, {"metadata": {"name": f"{name}-theirs", "namespace": "x"}, "spec": spec})
