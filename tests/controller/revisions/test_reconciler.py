"""The autoscaler class against an API server over HTTP, with Knative's part played by the test."""

from __future__ import annotations

import pytest

from knative_sponge.controller.kube.resource import (
    AUTOSCALER_CONFIG,
    DEPLOYMENTS,
    POD_AUTOSCALERS,
    REVISIONS,
    SERVERLESS_SERVICES,
)
from tests.controller.apiserver import Refused
from tests.controller.revision_kit import (
    DEPLOYMENT,
    NAME,
    NAMESPACE,
    autoscaler,
    condition,
    deployment,
    revision,
    run,
    until,
)
from tests.controller.revisions.reconciler_kit import make, serving, world


def test_a_revision_comes_up_and_comes_to_rest() -> None:
    async def body() -> None:
        async with world() as known:
            make(known.api)
            await until(lambda: known.is_("Ready", "Unknown") and known.service() is not None)
            assert condition(known.status(), "Active")["reason"] == "Queued"
            known.knative_reports(ready=True)
            known.api.change(DEPLOYMENTS, DEPLOYMENT, NAMESPACE, status={"readyReplicas": 1})
            await until(lambda: known.is_("Ready", "True"))
            assert known.status()["serviceName"] == NAME
            # Nothing is written for a change that changes nothing.
            before = len(known.api.calls)
            done = known.outcomes("ok")
            known.api.change(DEPLOYMENTS, DEPLOYMENT, NAMESPACE, metadata={"annotations": {"touched": "yes"}})
            await until(lambda: known.outcomes("ok") > done)
            assert len(known.api.calls) == before

    run(body())


def test_a_revision_that_loses_its_route_goes_to_zero_and_comes_back_with_it() -> None:
    async def body() -> None:
        async with world() as known:
            await serving(known)
            route = {"labels": {"serving.knative.dev/routingState": "reserve"}}
            known.api.change(REVISIONS, NAME, NAMESPACE, metadata=route)
            await until(lambda: (known.service() or {})["spec"]["mode"] == "Proxy")
            await until(lambda: known.is_("Active", "False"))
            assert known.replicas() == 1
            known.knative_reports(ready=True, activator=True)
            await until(lambda: known.replicas() == 0)
            assert known.is_("ScaleTargetInitialized", "True")

            route = {"labels": {"serving.knative.dev/routingState": "active"}}
            known.api.change(REVISIONS, NAME, NAMESPACE, metadata=route)
            await until(lambda: known.replicas() == 1 and (known.service() or {})["spec"]["mode"] == "Serve")

    run(body())


NO_GRACE = {"scale-to-zero-grace-period": "0s"}


def test_an_idle_revision_sleeps_and_wakes_with_a_request_or_when_nobody_would_notice_one() -> None:
    async def body() -> None:
        async with world() as known:
            known.api.put(
                AUTOSCALER_CONFIG,
                {"metadata": {"name": "config-autoscaler", "namespace": "knative-serving"}, "data": NO_GRACE},
            )
            await serving(known)
            known.cold_requests.idle_s = 3600.0
            known.cold_requests.open(visible=True)
            await until(lambda: known.is_("Active", "False") and (known.service() or {})["spec"]["mode"] == "Proxy")
            known.knative_reports(ready=True, activator=True)
            await until(lambda: known.replicas() == 0)
            known.cold_requests.idle_s = None
            known.api.change(DEPLOYMENTS, DEPLOYMENT, NAMESPACE, status={"readyReplicas": 0})
            await until(lambda: known.status()["actualScale"] == 0)
            assert known.cold_requests.expected == {(NAMESPACE, NAME)}
            assert known.is_("ScaleTargetInitialized", "True")

            known.cold_requests.request()
            await until(lambda: known.replicas() == 1 and known.is_("Active", "Unknown"))
            assert not known.cold_requests.expected

            known.cold_requests.idle_s = 3600.0
            known.api.change(DEPLOYMENTS, DEPLOYMENT, NAMESPACE, status={"readyReplicas": 1})
            await until(lambda: known.is_("Active", "False") and (known.service() or {})["spec"]["mode"] == "Proxy")
            known.knative_reports(ready=True, activator=True)
            await until(lambda: known.replicas() == 0)
            known.cold_requests.idle_s = None
            known.cold_requests.open(visible=False)
            await until(lambda: known.replicas() == 1)

    run(body())


def test_nobody_listens_for_a_revision_that_is_gone() -> None:
    async def body() -> None:
        async with world() as known:
            await serving(known)
            known.cold_requests.idle_s = 3600.0
            known.cold_requests.open(visible=True)
            await until(lambda: known.cold_requests.expected)
            known.api.remove(POD_AUTOSCALERS, NAME, NAMESPACE)
            await until(lambda: not known.cold_requests.expected)

    run(body())


def test_the_clusters_defaults_count_and_are_followed() -> None:
    async def body() -> None:
        async with world() as known:
            metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
            known.api.put(AUTOSCALER_CONFIG, {"metadata": metadata, "data": {"min-scale": "2"}})
            make(known.api)
            await until(lambda: known.replicas() == 2)
            known.api.put(AUTOSCALER_CONFIG, {"metadata": metadata, "data": {"min-scale": "3"}})
            await until(lambda: known.replicas() == 3)

    run(body())


def test_own_writes_do_not_run_into_conflicts_while_the_watch_lags() -> None:
    async def body() -> None:
        async with world() as known:
            await serving(known)
            known.api.held.add(POD_AUTOSCALERS.path())
            known.api.change(DEPLOYMENTS, DEPLOYMENT, NAMESPACE, status={"readyReplicas": 0})
            await until(lambda: known.is_("Active", "Unknown"))
            known.api.change(DEPLOYMENTS, DEPLOYMENT, NAMESPACE, status={"readyReplicas": 1})
            await until(lambda: known.is_("Active", "True"))
            assert known.outcomes("conflict") == 0

    run(body())


def test_conflicts_are_tried_again_from_a_fresh_snapshot() -> None:
    async def body() -> None:
        async with world() as known:
            times = iter(range(3))

            def race(method: str, path: str) -> None:
                if method == "PATCH" and path.endswith("/status") and next(times, None) is not None:
                    known.api.change(POD_AUTOSCALERS, NAME, NAMESPACE, metadata={"annotations": {"by": "another"}})

            known.api.before = race
            await serving(known)
            assert known.outcomes("conflict") >= 1

    run(body())


def test_a_server_that_refuses_writes_for_a_while_is_asked_again() -> None:
    async def body() -> None:
        async with world() as known:
            times = iter(range(3))

            def refuse(method: str, _path: str) -> None:
                if method != "GET" and next(times, None) is not None:
                    raise Refused(500, "InternalError", "webhook is down")

            known.api.before = refuse
            await serving(known)
            assert known.outcomes("error") == 3

    run(body())


def test_revisions_of_other_classes_are_not_touched() -> None:
    async def body() -> None:
        async with world() as known:
            known.api.put(DEPLOYMENTS, deployment("kpa", replicas=5))
            known.api.put(REVISIONS, revision("kpa"))
            known.api.put(POD_AUTOSCALERS, autoscaler("kpa", class_name="kpa.autoscaling.knative.dev"))
            await serving(known)
            assert not known.api.writes(to="kpa")

    run(body())


def test_the_class_works_on_after_watches_broke_and_history_was_lost() -> None:
    async def body() -> None:
        async with world() as known:
            await serving(known)
            known.api.cut()
            known.api.change(
                POD_AUTOSCALERS, NAME, NAMESPACE, metadata={"annotations": {"autoscaling.knative.dev/min-scale": "2"}}
            )
            known.api.forget()
            await until(lambda: known.replicas() == 2)

    run(body())


def test_an_object_that_is_not_understood_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with world() as known:
            odd = autoscaler("odd-00001")
            del odd["spec"]["scaleTargetRef"]
            known.api.put(REVISIONS, revision("odd-00001"))
            known.api.put(POD_AUTOSCALERS, odd)
            await until(lambda: known.outcomes("error") > 0)
            await serving(known)
            # It is tried again, and fine once it is understood.
            known.api.change(POD_AUTOSCALERS, "odd-00001", NAMESPACE, spec=autoscaler("odd-00001")["spec"])
            await until(lambda: known.api.get(SERVERLESS_SERVICES, "odd-00001", NAMESPACE) is not None)

    run(body())
    assert "revisions: models/odd-00001 cannot be handled: KeyError: 'scaleTargetRef'" in caplog.text
