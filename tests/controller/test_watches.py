"""What the leader holds of a cluster, on objects that stock Knative made."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from knative_sponge.controller.kube import Kube
from knative_sponge.controller.resource import DEPLOYMENTS, PODS, REVISIONS, Object
from knative_sponge.controller.watches import Watches
from tests.controller.admission import pod_with
from tests.controller.apiserver import FakeApi
from tests.controller.revision_kit import deployment, revision, run, until

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
            text = json.dumps(held)
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
