"""How the leader is found through the API server, and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from knative_sponge.cli.leader import Leader, leader
from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.reporting.rows import Overview
from knative_sponge.errors import KubeError, KubeNotFound, KubeUnreachable
from tests.cli.fake_cluster import FORWARDED, FakeCluster
from tests.controller.reporting.board_kit import NODE, REVISION
from tests.controller.revision_kit import run

OVERVIEW = Overview(0.1, (REVISION,), (NODE,))
LEASE = "/apis/coordination.k8s.io/v1/namespaces/knative-sponge/leases/autoscaler"


def test_the_lease_is_read_once_and_the_leader_then_asked() -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            cluster.led_by("a-1")
            cluster.pods["a-1"] = OVERVIEW
            kube = Kube.at(cluster.url)
            found = Leader(kube)
            assert await found.overview() == OVERVIEW
            assert await found.overview() == OVERVIEW
            assert cluster.asked == [LEASE, FORWARDED.format("a-1"), FORWARDED.format("a-1")]
            await kube.close()

    run(body())


@pytest.mark.parametrize("left", ["gone", "does not lead"])
def test_a_change_of_leader_costs_one_failed_look(left: str) -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            cluster.led_by("a-1")
            cluster.pods = {"a-1": OVERVIEW, "a-2": OVERVIEW}
            kube = Kube.at(cluster.url)
            found = Leader(kube)
            await found.overview()
            cluster.led_by("a-2")
            if left == "gone":
                del cluster.pods["a-1"]
            else:
                cluster.pods["a-1"] = None
            with pytest.raises(KubeError, match="the leader a-1 cannot be asked"):
                await found.overview()
            assert await found.overview() == OVERVIEW
            assert cluster.asked[-2:] == [LEASE, FORWARDED.format("a-2")]
            await kube.close()

    run(body())


def test_why_the_leader_cannot_be_asked_is_told() -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            cluster.led_by("a-1")
            cluster.pods["a-1"] = OVERVIEW
            kube = Kube.at(cluster.url)
            cluster.refused = 403
            with pytest.raises(KubeError, match=r"the leader a-1 cannot be asked: .*portforward: 403") as caught:
                await Leader(kube).overview()
            assert caught.value.status == 403
            cluster.refused, cluster.deaf = 0, True
            with pytest.raises(KubeUnreachable, match="connection refused"):
                await Leader(kube).overview()
            cluster.deaf, cluster.pods["a-1"] = False, None
            with pytest.raises(KubeError, match="does not lead"):
                await Leader(kube).overview()
            await kube.close()

    run(body())


def test_a_large_overview_comes_through_in_pieces() -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            cluster.led_by("a-1")
            rows = tuple(replace(REVISION, name=f"ocr-{number}") for number in range(500))
            cluster.pods["a-1"] = Overview(0.1, rows, (NODE,))
            kube = Kube.at(cluster.url)
            assert await Leader(kube).overview() == cluster.pods["a-1"]
            await kube.close()

    run(body())


def test_a_cluster_without_the_autoscaler_or_without_leader_is_told_apart() -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            kube = Kube.at(cluster.url)
            with pytest.raises(KubeNotFound, match="not installed"):
                await Leader(kube).overview()
            cluster.led_by("")
            with pytest.raises(KubeUnreachable, match="no replica"):
                await Leader(kube).overview()
            await kube.close()

    run(body())


def test_kubeconfig_and_context_choose_the_cluster(tmp_path: Path) -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            cluster.led_by("a-1")
            cluster.pods["a-1"] = OVERVIEW
            config = cluster.kubeconfig(tmp_path, "there")
            for context in (None, "there"):
                async with leader(config, context) as found:
                    assert await found.overview() == OVERVIEW
            for path, context in ((config, "elsewhere"), (str(tmp_path / "none"), None)):
                with pytest.raises(KubeUnreachable, match="kubeconfig"):
                    async with leader(path, context):
                        pass

    run(body())
