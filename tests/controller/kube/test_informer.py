"""Informers: what they know and tell of the objects of one kind, against a server over real HTTP."""

from __future__ import annotations

import asyncio
import copy
import random
from typing import Any

import msgspec
import pytest

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.informer import Changed, Informer
from knative_sponge.controller.kube.resource import DEPLOYMENTS, PODS, Object
from knative_sponge.controller.quarantine import Failures
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.revision_kit import NAMESPACE, deployment, item, run, until


class Followed:
    """An informer of pods and what it told."""

    def __init__(self, api: FakeApi, **selectors: Any) -> None:
        self.kube = Kube.at(api.url)
        self.informer = Informer(self.kube, PODS, rng=random.Random(1), **selectors)
        self.told: list[tuple[str, str]] = []
        self.informer.subscribe(self._tell)
        self._task = asyncio.create_task(self.informer.run())

    def _tell(self, changed: Changed[Object]) -> None:
        change = "new" if changed.before is None else "gone" if changed.after is None else "changed"
        assert changed.key == (NAMESPACE, changed.last["metadata"]["name"])
        self.told.append((change, changed.key[1]))

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


@pytest.mark.parametrize(
    ("version", "uid", "taken"),
    [
        pytest.param("102", "uid-pods-here", True, id="a later version"),
        pytest.param("1000", "uid-pods-here", True, id="later as a number, not as a text"),
        pytest.param("102", None, True, id="an answer without uid"),
        pytest.param("v7", "uid-pods-here", True, id="a version without order"),
        pytest.param("100", "uid-pods-here", False, id="an earlier version"),
        pytest.param("99", "uid-pods-here", False, id="earlier as a number, not as a text"),
        pytest.param("102", "uid-of-another", False, id="another object of that name"),
    ],
)
def test_a_slow_answer_does_not_take_the_place_of_what_was_seen_since(
    version: str, uid: str | None, taken: bool
) -> None:
    async def body() -> None:
        async with FakeApi() as api:
            seen = api.put(PODS, item("here"))
            assert (seen["metadata"]["resourceVersion"], seen["metadata"]["uid"]) == ("101", "uid-pods-here")
            followed = Followed(api)
            await followed.informer.synced.wait()
            answer = copy.deepcopy(seen)
            answer["metadata"] |= {"resourceVersion": version, "uid": uid}
            if uid is None:
                del answer["metadata"]["uid"]
            followed.informer.learn(answer)
            known = followed.informer.get((NAMESPACE, "here"))
            assert known == (answer if taken else seen)
            assert followed.told == [("new", "here")] + [("changed", "here")] * taken
            await followed.close()

    run(body())


def test_what_was_learned_from_an_answer_is_not_told_again_by_the_watch() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            api.put(PODS, item("written"))
            followed = Followed(api)
            await until(lambda: api.watches == 1)
            api.held.add(PODS.path())
            api.change(PODS, "written", NAMESPACE, status={"phase": "Running"})
            answer = api.get(PODS, "written", NAMESPACE)
            assert answer is not None
            followed.informer.learn(answer)
            api.held.clear()
            api.change(PODS, "written", NAMESPACE, status={"phase": "Failed"})
            api.put(PODS, item("next"))
            await until(lambda: "next" in followed.names)
            assert followed.told == [("new", "written"), *[("changed", "written")] * 2, ("new", "next")]
            await followed.close()

    run(body())


def test_a_change_is_of_something_and_its_last_state_is_known() -> None:
    key = (NAMESPACE, "a")
    assert Changed(key, None, "new").last == "new"
    assert Changed(key, "old", "new").last == "new"
    assert Changed(key, "old", None).last == "old"
    with pytest.raises(ValueError, match="neither before nor after"):
        Changed[str](key, None, None)


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


def test_an_object_that_cannot_be_kept_costs_no_other_listed_or_watched(caplog: pytest.LogCaptureFixture) -> None:
    def keep(found: Object) -> Object:
        if "broken" in found["metadata"]["labels"]:
            raise ZeroDivisionError
        return found

    async def body() -> None:
        async with FakeApi() as api:
            api.put(PODS, item("listed", broken="yes"))
            api.put(PODS, item("known"))
            followed = Followed(api, keep=keep)
            await followed.informer.synced.wait()
            assert followed.names == {"known"}
            api.put(PODS, item("watched", broken="yes"))
            api.put(PODS, item("known", broken="yes"))
            api.put(PODS, item("sound"))
            await until(lambda: "sound" in followed.names)
            assert followed.names == {"known", "sound"}
            known = followed.informer.get((NAMESPACE, "known"))
            assert known is not None
            assert "broken" not in known["metadata"]["labels"], "what was known holds on"
            api.put(PODS, item("watched"))
            api.remove(PODS, "known", NAMESPACE)
            await until(lambda: followed.names == {"watched", "sound"})
            await followed.close()

    run(body())
    assert caplog.text.count("cannot be handled: ZeroDivisionError") == 3


def test_an_object_of_which_only_the_name_can_be_read_costs_no_other() -> None:
    def read(text: Any) -> Object:
        found = msgspec.json.decode(text)
        if "broken" in found["metadata"]["labels"]:
            raise msgspec.ValidationError
        return found  # type: ignore[no-any-return]

    async def body() -> None:
        async with FakeApi() as api:
            api.put(PODS, item("listed", broken="yes"))
            followed = Followed(api, read=read)
            await followed.informer.synced.wait()
            api.put(PODS, item("watched", broken="yes"))
            api.put(PODS, item("sound"))
            await until(lambda: followed.names == {"sound"})
            api.remove(PODS, "listed", NAMESPACE)
            api.put(PODS, item("last"))
            await until(lambda: followed.names == {"sound", "last"})
            await followed.close()

    run(body())


def test_a_subscriber_that_fails_is_told_again_of_that_object_and_of_others_meanwhile() -> None:
    async def body() -> None:
        now = 0.0
        async with FakeApi() as api:
            failures = Failures(clock=lambda: now)
            followed = Followed(api, failures=failures)
            told: list[Changed[Object]] = []
            fails = True

            def subscriber(changed: Changed[Object]) -> None:
                if fails and changed.key[1] == "evil":
                    raise ZeroDivisionError
                told.append(changed)

            followed.informer.subscribe(subscriber)
            api.put(PODS, item("evil"))
            api.change(PODS, "evil", NAMESPACE, status={"phase": "Failed"})
            api.put(PODS, item("sound"))
            await until(lambda: told)
            assert [changed.key[1] for changed in told] == ["sound"]
            fails, now = False, 10.0
            await until(lambda: len(told) == 2)
            assert told[1].before is None, "it was never told of it"
            assert told[1].after is not None
            assert told[1].after["status"]["phase"] == "Failed"
            await followed.close()

    run(body())


def test_a_subscriber_that_fails_is_told_at_once_that_the_object_has_gone() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            followed = Followed(api)
            gone: list[Changed[Object]] = []

            def subscriber(changed: Changed[Object]) -> None:
                if changed.after is not None:
                    raise ZeroDivisionError
                gone.append(changed)

            followed.informer.subscribe(subscriber)
            api.put(PODS, item("evil"))
            await until(lambda: followed.names)
            api.remove(PODS, "evil", NAMESPACE)
            await until(lambda: gone)
            assert gone[0].before is not None
            await followed.close()

    run(body())
