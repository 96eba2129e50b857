"""Pods that pose as a revision's, and annotations that are changed on running ones, with the real sizer on an API server."""

from __future__ import annotations

from typing import Any

from knative_sponge.controller.kube.resource import LIMITS, PODS
from tests.controller.revision_kit import run, until
from tests.controller.sizing.node_kit import NAMESPACE, Node, a_node, sizing


async def seen(node: Node, name: str) -> None:
    """Until the sizer has seen the pod as the API server has it now."""
    stored: Any = node.api.get(PODS, name, NAMESPACE)
    version = stored["metadata"]["resourceVersion"]
    await until(lambda: (node.watches.pods.get((NAMESPACE, name)) or stored)["metadata"]["resourceVersion"] >= version)
    await until(lambda: (NAMESPACE, name) in node.watches.pods.objects)


def test_a_bare_pod_with_our_label_annotations_image_and_token_is_never_managed() -> None:
    async def body() -> None:
        async with a_node(8.0) as node:
            await node.add("honest", 1.0, ip="127.0.0.1")
            await node.add("bare", 0.1, ip="127.0.0.2")
            pod: Any = node.api.get(PODS, "bare", NAMESPACE)
            for references in ([], [pod["metadata"]["ownerReferences"][0] | {"uid": "guessed"}]):
                node.api.put(PODS, pod | {"metadata": pod["metadata"] | {"ownerReferences": references}})
            async with sizing(node) as sizer:
                await until(lambda: node.proxies["honest"].listeners)
                await seen(node, "bare")
                node.proxies["honest"].want(6.0)
                await until(lambda: node.in_force("honest") >= 6.0)
                assert sizer.divider.pods.keys() == {(NAMESPACE, "honest")}
                assert not node.proxies["bare"].listeners
                assert node.cores("bare") == 0.1

    run(body())


def test_min_cores_patched_onto_a_running_pod_does_nothing() -> None:
    async def body() -> None:
        async with a_node(8.0) as node:
            await node.add("honest", 1.0, ip="127.0.0.1")
            await node.add("patched", 1.0, ip="127.0.0.2", namespace="others")
            async with sizing(node) as sizer:
                await until(lambda: all(proxy.listeners for proxy in node.proxies.values()))
                changed = {"knative-sponge.dev/min-cores": "7", "knative-sponge.dev/priority": "9"}
                pod: Any = node.api.get(PODS, "patched", "others")
                metadata = pod["metadata"]
                node.api.put(PODS, pod | {"metadata": metadata | {"annotations": metadata["annotations"] | changed}})
                key = ("others", "patched")
                await until(lambda: "7" in str(node.watches.pods.objects[key]["metadata"]["annotations"]))
                node.proxies["honest"].want(6.0)
                await until(lambda: node.in_force("honest") >= 6.0)
                settings = sizer.divider.pods[key].resizer.pod.settings
                assert settings is not None
                assert (settings.min_cores, settings.priority) == (0.1, 5)

    run(body())


def test_limits_hold_for_pods_that_run_as_soon_as_they_are_written() -> None:
    async def body() -> None:
        async with a_node(8.0) as node:
            await node.add("a", 1.0, ip="127.0.0.1", min_cores="4", max_cores="6")
            async with sizing(node) as sizer:
                await until(lambda: node.in_force("a") >= 4.0)
                metadata = {"name": LIMITS.names[0], "namespace": "knative-sponge"}
                node.api.put(LIMITS, {"metadata": metadata, "data": {NAMESPACE: "max-cores: 2\nhead-room: 0"}})
                await until(lambda: node.in_force("a") == 2.0)
                node.proxies["a"].want(9.0)
                row = sizer.divider.rows()["n1"]
                await until(lambda: (node.wanted("a") or 0.0) > 2.0 and sizer.divider.rows()["n1"] is not row)
                assert sizer.divider.pods[NAMESPACE, "a"].resizer.machine.target == 2.0

    run(body())
