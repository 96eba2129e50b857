"""Revisions come and go while requests are in flight: probes, drain and routes together lose none."""

from __future__ import annotations

from e2e.harness.client import asking
from e2e.harness.kube import Kube
from e2e.harness.services import SLO, Services
from e2e.tests.conftest import Measure


def test_a_prober_sees_no_failure_through_three_rollouts(services: Services, kube: Kube, measure: Measure) -> None:
    service = services.create("echo", "echo", annotations={SLO: "5s"}, more=["--request", "cpu=50m"])
    with (
        asking(lambda: service.client.get("/"), every_s=0.01) as quick,
        asking(lambda: service.client.get("/sleep?ms=700"), clients=4) as slow,
    ):
        for version in "123":
            services.update("echo", env={"VERSION": version})
        kube.until(
            "the old revisions' pods to be on their way out",
            lambda: len(kube.pods("echo", services.namespace)) == 1,
            timeout_s=60,
        )
    assert quick.errors == []
    assert slow.errors == []
    measure("quick requests", quick.sent)
    measure("requests of 0.7 s", slow.sent)
    measure("longest quick request, s", round(quick.longest_s, 3))


def test_a_drained_pod_ends_by_itself_and_in_order(services: Services, kube: Kube, measure: Measure) -> None:
    service = services.create("echo", "echo", annotations={SLO: "5s"}, more=["--request", "cpu=50m"])
    (old,) = kube.pods("echo", services.namespace)
    with asking(lambda: service.client.get("/sleep?ms=500"), clients=2) as tally:
        services.update("echo", env={"VERSION": "2"})
        name = old["metadata"]["name"]
        kube.until("the old pod's end", lambda: not kube.exists("pod", name, services.namespace), timeout_s=120)
    assert tally.errors == []
    measure("requests until the old pod had ended", tally.sent)
