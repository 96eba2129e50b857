"""The facade over the API server, against a server over real HTTP."""

from __future__ import annotations

import pytest

from knative_sponge.controller.kube.client import NAMESPACE_TERMINATING, Kube, Patch, WatchEventType
from knative_sponge.controller.kube.resource import EVENTS, LEASES, PODS, SERVERLESS_SERVICES, Object
from knative_sponge.errors import KubeConflict, KubeError, KubeGone, KubeNotFound, KubeUnreachable, NotLeader
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.revision_kit import NAMESPACE, item, run

LEASE: Object = {"metadata": {"name": "autoscaler", "namespace": "knative-sponge"}, "spec": {"holderIdentity": "a"}}


def test_an_object_is_created_read_and_replaced() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            made = await kube.create(LEASES, LEASE, "knative-sponge")
            made["spec"]["holderIdentity"] = "b"
            replaced = await kube.replace(LEASES, made, "knative-sponge")
            assert await kube.get(LEASES, "autoscaler", "knative-sponge") == replaced
            assert api.writes() == [
                ("POST", "/apis/coordination.k8s.io/v1/namespaces/knative-sponge/leases"),
                ("PUT", "/apis/coordination.k8s.io/v1/namespaces/knative-sponge/leases/autoscaler"),
            ]
            await kube.close()

    run(body())


def test_a_race_is_a_conflict_and_an_absent_object_is_not_found() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            with pytest.raises(KubeNotFound):
                await kube.get(LEASES, "autoscaler", "knative-sponge")
            made = await kube.create(LEASES, LEASE, "knative-sponge")
            with pytest.raises(KubeConflict) as caught:
                await kube.create(LEASES, LEASE, "knative-sponge")
            assert caught.value.reason == "AlreadyExists"
            await kube.replace(LEASES, made, "knative-sponge")
            with pytest.raises(KubeConflict) as caught:
                await kube.replace(LEASES, made, "knative-sponge")
            assert caught.value.reason == "Conflict"
            await kube.close()

    run(body())


@pytest.mark.parametrize(
    ("bypassed", "proxy"), [("", "http://proxy:3128"), ("api.example", None), (".example", None)], ids=str
)
def test_a_proxy_of_the_environment_is_used_and_looked_for_once(
    bypassed: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", bypassed)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    configuration = Kube.at("http://api.example:8001")._client.configuration
    assert configuration.proxy == proxy
    assert configuration.client_session_kwargs == {"trust_env": False}


@pytest.mark.parametrize("kind", list(Patch))
def test_a_patch_says_how_it_is_to_be_read(kind: Patch) -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            api.put(SERVERLESS_SERVICES, {"metadata": {"name": "s", "namespace": NAMESPACE}, "spec": {"mode": "Serve"}})
            await kube.patch(SERVERLESS_SERVICES, "s", {"spec": {"mode": "Proxy"}}, NAMESPACE, kind=kind)
            assert api.calls[-1][2] == kind
            await kube.close()

    run(body())


def test_a_verb_that_the_manifests_do_not_grant_is_not_even_tried() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            with pytest.raises(PermissionError, match="patch pods"):
                await kube.patch(PODS, "p", {}, NAMESPACE)
            with pytest.raises(PermissionError):
                await kube.get(EVENTS, "e", NAMESPACE)
            assert api.calls == []
            await kube.close()

    run(body())


def test_refusals_and_silence_are_our_errors() -> None:
    async def body() -> None:
        async with FakeApi() as api:

            def forbid(_method: str, _path: str) -> None:
                raise Refused(403, "Forbidden", "no")

            api.before = forbid
            kube = Kube.at(api.url)
            with pytest.raises(KubeError, match="403 Forbidden: no") as caught:
                await kube.get(LEASES, "autoscaler", "knative-sponge")
            assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
            url = api.url
            await kube.close()
        kube = Kube.at(url)
        with pytest.raises(KubeUnreachable):
            await kube.get(LEASES, "autoscaler", "knative-sponge")
        await kube.close()

    run(body())


def test_a_namespace_on_its_way_out_can_be_told_from_a_missing_permission() -> None:
    async def body() -> None:
        async with FakeApi() as api:

            def forbid(_method: str, _path: str) -> None:
                refused = Refused(403, "Forbidden", "unable to create new content")
                refused.body["details"] = {
                    "causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]
                }
                raise refused

            api.before = forbid
            kube = Kube.at(api.url)
            with pytest.raises(KubeError) as caught:
                await kube.create(SERVERLESS_SERVICES, {"metadata": {"name": "s"}}, NAMESPACE)
            assert (caught.value.status, caught.value.reason) == (403, NAMESPACE_TERMINATING)
            await kube.close()

    run(body())


def test_a_fence_holds_back_writes_but_not_reads() -> None:
    async def body() -> None:
        async with FakeApi() as api:

            def fence() -> float:
                raise NotLeader("held back")

            plain = Kube.at(api.url)
            kube = plain.fenced(fence)
            await plain.create(LEASES, LEASE, "knative-sponge")
            found = await kube.get(LEASES, "autoscaler", "knative-sponge")
            with pytest.raises(NotLeader):
                await kube.replace(LEASES, found, "knative-sponge")
            assert len(api.calls) == 1
            await kube.close()

    run(body())


def test_a_list_gathers_all_pages() -> None:
    async def body() -> None:
        async with FakeApi(page=3) as api:
            for number in range(10):
                api.put(PODS, item(f"p{number}"))
            kube = Kube.at(api.url)
            listing = await kube.list(PODS)
            assert [found["metadata"]["name"] for found in listing.items] == [f"p{number}" for number in range(10)]
            assert api.lists == 4
            await kube.close()

    run(body())


def test_a_watch_carries_objects_larger_than_any_buffer() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            api.put(PODS, item("large") | {"status": {"note": "x" * 3_000_000}})
            async for change, found in kube.watch(PODS, "100"):
                assert change is WatchEventType.ADDED
                assert len(found["status"]["note"]) == 3_000_000
                break
            await kube.close()

    run(body())


def test_a_watch_from_a_forgotten_version_says_so() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            api.put(PODS, item("p"))
            api.forget()
            with pytest.raises(KubeGone):
                async for _ in kube.watch(PODS, "100"):
                    pass
            await kube.close()

    run(body())
