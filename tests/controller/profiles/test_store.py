"""The ConfigMap of profiles as the leader writes it: what is news, how often, and through failures."""

from __future__ import annotations

import json

import pytest

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.profiles.store import WRITE_S, ProfileStore
from knative_sponge.wire.demand import DemandLine
from tests.controller.apiserver import Refused
from tests.controller.profile_kit import KEYS, document
from tests.controller.profiles.profile_store_kit import NOW, SPACE, line, put, said, stage, stored
from tests.controller.revision_kit import run


def test_what_a_leader_learned_another_replica_reads() -> None:
    async def body() -> None:
        async with stage() as (api, store, keeper):
            keeper.learn(KEYS[0], document(), 1.5)
            await keeper.flush(NOW)
            other = ProfileStore(Kube.at(api.url), SPACE)
            await other.read()
            for each in (store, other):
                found = each.get(KEYS[0])
                assert found is not None
                assert (found.cores, found.seen_s) == (1.5, NOW)
                assert json.loads(found.model)["samples"] == 300
                assert each.get(KEYS[1]) is None
            await other._kube.close()  # type: ignore[attr-defined]

    run(body())


def test_profiles_are_added_to_those_that_are_there_and_only_what_changed_is_sent() -> None:
    async def body() -> None:
        async with stage() as (api, _, keeper):
            put(api, {KEYS[0]: line(), KEYS[1]: line()})
            keeper.learn(KEYS[1], document(factor=2.0), 1.0)
            keeper.learn(KEYS[2], document(), 1.0)
            await keeper.flush(NOW)
            (call,) = api.calls
            assert (call[0], set(call[3]["data"])) == ("PATCH", {KEYS[1], KEYS[2]})
            assert set(stored(api)) == set(KEYS[:3])

    run(body())


def test_what_is_no_news_is_not_written() -> None:
    async def body() -> None:
        async with stage() as (api, _, keeper):
            keeper.learn(KEYS[0], document(300), 1.0)
            await keeper.flush(NOW)
            keeper.learn(KEYS[0], document(310), 1.0)
            await keeper.flush(NOW + 2 * WRITE_S)
            assert [method for method, _ in api.writes()] == ["POST"]

    run(body())


def test_writes_keep_their_distance() -> None:
    async def body() -> None:
        async with stage() as (api, _, keeper):
            keeper.learn(KEYS[0], document(), 1.0)
            await keeper.flush(NOW)
            keeper.learn(KEYS[1], document(), 1.0)
            for wait_s in (0.0, 1.0, WRITE_S - 0.1):
                await keeper.flush(NOW + wait_s)
            assert len(api.writes()) == 1
            await keeper.flush(NOW + WRITE_S)
            assert len(api.writes()) == 2
            assert set(stored(api)) == set(KEYS[:2])

    run(body())


@pytest.mark.parametrize(
    "refused", [Refused(500, "InternalError"), Refused(403, "Forbidden"), Refused(409, "Conflict")]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_that_fails_loses_nothing(refused: Refused, method: str) -> None:
    async def body() -> None:
        async with stage() as (api, store, keeper):

            def refuse(called: str, _path: str) -> None:
                if called == method:
                    raise refused

            keeper.learn(KEYS[0], document(), 1.0)
            api.before = refuse
            await keeper.flush(NOW)
            assert store.get(KEYS[0]) is None
            keeper.learn(KEYS[1], document(), 1.0)
            api.before = lambda _method, _path: None
            await keeper.flush(NOW + WRITE_S)
            assert set(stored(api)) == set(KEYS[:2])

    run(body())


def test_a_race_is_lost_without_overwriting_and_tried_again() -> None:
    async def body() -> None:
        async with stage() as (api, _, keeper):
            put(api, {KEYS[0]: line()})
            keeper.learn(KEYS[1], document(), 1.0)

            def overtake(method: str, _path: str) -> None:
                if method == "PATCH":
                    api.before = lambda _method, _path: None
                    put(api, {KEYS[0]: line(), KEYS[2]: line()})

            api.before = overtake
            await keeper.flush(NOW)
            assert set(stored(api)) == {KEYS[0], KEYS[2]}
            await keeper.flush(NOW + WRITE_S)
            assert set(stored(api)) == {KEYS[0], KEYS[1], KEYS[2]}

    run(body())


def test_a_pod_that_has_only_begun_does_not_replace_what_others_know() -> None:
    async def body() -> None:
        async with stage() as (api, store, keeper):
            put(api, {KEYS[0]: line(samples=300)})
            keeper.learn(KEYS[0], document(20, factor=3.0), 1.0)
            await keeper.flush(NOW)
            assert api.writes() == []
            keeper.learn(KEYS[0], document(150, factor=3.0), 1.0)
            await keeper.flush(NOW + WRITE_S)
            found = store.get(KEYS[0])
            assert found is not None
            assert found.samples == 150

    run(body())


def test_the_start_size_grows_at_once_and_fades_slowly() -> None:
    async def body() -> None:
        async with stage() as (_, store, keeper):
            told: list[tuple[float | None, float]] = [(1.0, 1.0), (4.0, 4.0), (None, 4.0), (0.5, 3.65), (4.5, 4.5)]
            for number, (cores, expected) in enumerate(told):
                keeper.learn(KEYS[0], document(), cores)
                await keeper.flush(NOW + number * 4000)  # so long that it is written for a sign of life
                found = store.get(KEYS[0])
                assert found is not None
                assert found.cores == expected

    run(body())


def test_the_largest_size_between_two_writes_counts() -> None:
    async def body() -> None:
        async with stage() as (_, store, keeper):
            for cores in (1.0, 3.0, None, 2.0):
                keeper.learn(KEYS[0], document(), cores)
            await keeper.flush(NOW)
            found = store.get(KEYS[0])
            assert found is not None
            assert found.cores == 3.0

    run(body())


def test_only_models_that_would_be_news_are_asked_for() -> None:
    async def body() -> None:
        async with stage() as (_, _, keeper):
            assert keeper.lacks(KEYS[0], said(), NOW)
            keeper.learn(KEYS[0], document(), 1.0)
            await keeper.flush(NOW)
            assert not keeper.lacks(KEYS[0], said(), NOW)
            assert not keeper.lacks(KEYS[0], said(320, cores=0.95), NOW)
            assert not keeper.lacks(KEYS[0], said(50, factor=2.0), NOW)  # its pod has only begun
            assert keeper.lacks(KEYS[0], said(factor=1.2), NOW)
            assert keeper.lacks(KEYS[0], said(cores=1.2), NOW)
            assert not keeper.lacks(KEYS[0], said(cores=1.2, rate=0.0), NOW)  # of an idle pod the size says nothing
            assert keeper.lacks(KEYS[0], said(), NOW + 3700)
            assert keeper.lacks(KEYS[0], DemandLine(cores=1.0, want=1.0), NOW)  # it does not say
            assert not keeper.lacks(KEYS[0], DemandLine(cores=1.0, want=1.0, params=(0.0, 0.0, 0.0, 0.0)), NOW)
            assert keeper.lacks(KEYS[1], said(), NOW)

    run(body())
