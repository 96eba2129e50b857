"""The facade over the API server, against a server over real HTTP."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from knative_sponge.controller.informer import Informer
from knative_sponge.controller.kube import NAMESPACE_TERMINATING, Change, Kube, Patch
from knative_sponge.controller.resource import DEPLOYMENTS, EVENTS, LEASES, PODS, SERVERLESS_SERVICES, Object
from knative_sponge.errors import KubeConflict, KubeError, KubeGone, KubeNotFound, KubeUnreachable, NotLeader
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.revision_kit import NAMESPACE, deployment, pod, run, until

LEASE: Object = {"metadata": {"name": "autoscaler", "namespace": "knative-sponge"}, "spec": {"holderIdentity": "a"}}


def item(name: str, **labels: str) -> Object:
    found = pod(name, annotations={})
    found["metadata"]["labels"] |= labels
    return found


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

            def fence() -> None:
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
                assert change is Change.ADDED
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


class Followed:
    """An informer of pods and what it told."""

    def __init__(self, api: FakeApi, **selectors: Any) -> None:
        self.kube = Kube.at(api.url)
        self.informer = Informer(self.kube, PODS, rng=random.Random(1), **selectors)
        self.told: list[tuple[str, str]] = []
        self.informer.subscribe(self._tell)
        self._task = asyncio.create_task(self.informer.run())

    def _tell(self, before: Object | None, after: Object | None) -> None:
        change = "new" if before is None else "gone" if after is None else "changed"
        found = after or before
        assert found is not None
        self.told.append((change, found["metadata"]["name"]))

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.informer.objects}

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.kube.close()


def test_an_informer_follows_what_is_made_changed_and_removed() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            api.put(PODS, item("old"))
            followed = Followed(api)
            await followed.informer.synced.wait()
            assert followed.names == {"old"}
            api.put(PODS, item("new"))
            api.change(PODS, "old", NAMESPACE, status={"phase": "Failed"})
            api.remove(PODS, "new", NAMESPACE)
            await until(lambda: len(followed.told) == 4)
            assert followed.told == [("new", "old"), ("new", "new"), ("changed", "old"), ("gone", "new")]
            old = followed.informer.get((NAMESPACE, "old"))
            assert old is not None
            assert old["status"]["phase"] == "Failed"
            await followed.close()

    run(body())


def test_an_informer_learns_what_a_write_returned_but_revives_nothing() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            api.put(PODS, item("here"))
            gone = api.put(PODS, item("gone"))
            api.remove(PODS, "gone", NAMESPACE)
            followed = Followed(api)
            await until(lambda: api.watches == 1)
            api.before = _unavailable
            api.cut()
            written = api.get(PODS, "here", NAMESPACE)
            assert written is not None
            written["metadata"]["resourceVersion"] = "900"
            followed.informer.learn(written)
            followed.informer.learn(gone)
            assert followed.informer.get((NAMESPACE, "here")) is written
            assert followed.told == [("new", "here"), ("changed", "here")]
            assert followed.names == {"here"}
            await followed.close()

    run(body())


def _unavailable(_method: str, _path: str) -> None:
    raise Refused(503, "ServiceUnavailable")


def test_an_informer_only_knows_what_its_selector_matches() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            api.put(PODS, item("mine", sponge="1"))
            api.put(PODS, item("other"))
            followed = Followed(api, labels="sponge")
            await followed.informer.synced.wait()
            assert followed.names == {"mine"}
            await followed.close()

    run(body())


def test_a_broken_watch_goes_on_where_it_broke_without_listing_again() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            api.put(PODS, item("a"))
            followed = Followed(api)
            await until(lambda: api.watches == 1)
            api.cut()
            api.put(PODS, item("while-cut"))
            await until(lambda: "while-cut" in followed.names)
            assert api.lists == 1
            assert followed.told == [("new", "a"), ("new", "while-cut")]
            await followed.close()

    run(body())


def test_when_history_is_gone_the_differences_are_told_and_nothing_twice() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            for name in ("stays", "changes", "goes"):
                api.put(PODS, item(name))
            followed = Followed(api)
            await until(lambda: api.watches == 1)
            api.cut()
            api.remove(PODS, "goes", NAMESPACE)
            api.change(PODS, "changes", NAMESPACE, status={"phase": "Failed"})
            api.put(PODS, item("comes"))
            api.forget()
            await until(lambda: followed.names == {"stays", "changes", "comes"})
            await until(lambda: len(followed.told) == 6)
            assert sorted(followed.told[3:]) == [("changed", "changes"), ("gone", "goes"), ("new", "comes")]
            await followed.close()

    run(body())


def test_an_informer_outlives_a_server_that_is_away_at_start() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            refusals = iter(range(3))

            def fail(_method: str, _path: str) -> None:
                if next(refusals, None) is not None:
                    raise Refused(500, "InternalError", "etcd has no leader")

            api.before = fail
            api.put(PODS, item("p"))
            followed = Followed(api)
            await followed.informer.synced.wait()
            assert followed.names == {"p"}
            await followed.close()

    run(body())


def test_what_managers_wrote_is_not_kept_in_memory() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            found = deployment()
            found["metadata"]["managedFields"] = [{"manager": "kubectl"}]
            api.put(DEPLOYMENTS, found)
            kube = Kube.at(api.url)
            informer = Informer(kube, DEPLOYMENTS, rng=random.Random(1))
            task = asyncio.create_task(informer.run())
            await informer.synced.wait()
            assert all("managedFields" not in known["metadata"] for known in informer.objects.values())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await kube.close()

    run(body())
