"""The ConfigMap of profiles: read by every replica, written by the leader, bounded, and in nobody's way."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from knative_sponge.controller import profiles
from knative_sponge.controller.certificate import Certificates
from knative_sponge.controller.known import LONGEST, key_of, known, to_text
from knative_sponge.controller.kube import Kube
from knative_sponge.controller.profiles import MOST_BYTES, MOST_PROFILES, NAME, WRITE_S, ProfileKeeper, ProfileStore
from knative_sponge.controller.resource import NODES, PROFILES, SECRETS
from knative_sponge.controller.streams import Line
from tests.controller.admission import container, env_of, pod_with, question, stored_after
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.profile_kit import KEYS, document, learned
from tests.controller.revision_kit import run, until
from tests.controller.test_process import configure, replica
from tests.controller.webhook_kit import Held, Serving

SPACE = "knative-sponge"
NOW = 1_800_000_000.0


@asynccontextmanager
async def stage() -> AsyncIterator[tuple[FakeApi, ProfileStore, ProfileKeeper]]:
    async with FakeApi() as api:
        kube = Kube.at(api.url)
        store = ProfileStore(kube, SPACE)
        try:
            yield api, store, ProfileKeeper(kube, store, SPACE)
        finally:
            await kube.close()


def stored(api: FakeApi) -> dict[str, str]:
    found = api.get(PROFILES, NAME, SPACE)
    data: dict[str, str] = {} if found is None else found["data"]
    return data


def put(api: FakeApi, data: dict[str, str]) -> None:
    api.put(PROFILES, {"metadata": {"name": NAME, "namespace": SPACE}, "data": data})


def line(seen_s: float = NOW, cores: float | None = 1.0, **model: Any) -> str:
    return to_text(known(document(**model), cores, seen_s))


def said(samples: int = 300, *, cores: float = 1.0, rate: float = 5.0, factor: float = 1.0) -> Line:
    """What a proxy says that has learned `document(samples, factor=factor)`."""
    params = learned(samples, factor=factor).params
    numbers = (params.gamma, params.delta, params.epsilon, params.eta)
    return Line(cores=cores, want=cores, rate=rate, params=numbers, samples=samples)


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


def test_there_are_no_more_than_so_many_and_the_least_recently_seen_goes() -> None:
    async def body() -> None:
        async with stage() as (api, _, keeper):
            put(api, {key: line(NOW - 60 * number) for number, key in enumerate(KEYS[:MOST_PROFILES])})
            keeper.learn(KEYS[140], document(), 1.0)
            await keeper.flush(NOW)
            left = stored(api)
            assert len(left) == MOST_PROFILES
            assert KEYS[140] in left
            assert KEYS[MOST_PROFILES - 1] not in left, "seen longest ago"

    run(body())


def test_with_more_images_in_use_than_are_kept_nothing_is_written_over_and_over() -> None:
    async def body() -> None:
        async with stage() as (api, store, keeper):
            in_use, model = KEYS[: MOST_PROFILES + 20], document()

            async def flush(turn: int) -> None:
                for key in in_use:
                    keeper.learn(key, model, 1.0)
                await keeper.flush(NOW + turn * WRITE_S)

            for turn in range(4):
                await flush(turn)
            assert len(stored(api)) == MOST_PROFILES
            assert [method for method, _ in api.writes()] == ["POST"]
            out = max(stored(api))
            in_use.remove(out)
            await flush(5)
            assert store.get(out) is None, "what is not in use makes room"
            assert len(stored(api)) == MOST_PROFILES
            await flush(6)
            assert [method for method, _ in api.writes()] == ["POST", "PATCH"]

    run(body())


def test_all_of_them_together_stay_within_the_bytes() -> None:
    async def body() -> None:
        async with stage() as (api, _, keeper):
            large = document(3000, sizes=60)
            for key in KEYS[:60]:
                keeper.learn(key, large, 1.0)
            await keeper.flush(NOW)
            sizes = [len(key) + len(text) for key, text in stored(api).items()]
            assert MOST_BYTES - LONGEST - 100 < sum(sizes) <= MOST_BYTES

    run(body())


def test_what_cannot_be_read_is_passed_over_once_and_first_to_go(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with stage() as (api, store, keeper):
            put(api, {"notes": "by hand", **{key: line() for key in KEYS[:MOST_PROFILES]}})
            for _ in range(3):
                await store.read()
            assert store.get("notes") is None
            assert store.get(KEYS[0]) is not None
            assert sum("notes" in record.message for record in caplog.records) == 1
            keeper.learn(KEYS[0], document(factor=2.0), 1.0)
            await keeper.flush(NOW)
            assert set(stored(api)) == set(KEYS[:MOST_PROFILES])

    with caplog.at_level(logging.WARNING):
        run(body())


def test_a_removed_config_map_is_forgotten_and_made_again() -> None:
    async def body() -> None:
        async with stage() as (api, store, keeper):
            keeper.learn(KEYS[0], document(), 1.0)
            await keeper.flush(NOW)
            api.remove(PROFILES, NAME, SPACE)
            await store.read()
            assert store.get(KEYS[0]) is None
            keeper.learn(KEYS[0], document(), 1.0)
            await keeper.flush(NOW + WRITE_S)
            assert set(stored(api)) == {KEYS[0]}

    run(body())


def test_the_store_follows_the_cluster_through_failures(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(profiles, "READ_S", 0.01)

    async def body() -> None:
        async with stage() as (api, store, _):
            following = asyncio.create_task(store.run())
            put(api, {KEYS[0]: line()})
            await until(lambda: store.get(KEYS[0]))
            calls = 0

            def refuse(_method: str, _path: str) -> None:
                nonlocal calls
                calls += 1
                raise Refused(403, "Forbidden")

            api.before = refuse
            await until(lambda: calls > 3)
            assert store.get(KEYS[0]) is not None, "the last ones stand"
            api.before = lambda _method, _path: None
            put(api, {KEYS[1]: line()})
            await until(lambda: store.get(KEYS[1]))
            assert store.get(KEYS[0]) is None
            following.cancel()

    with caplog.at_level(logging.WARNING):
        run(body())
    assert sum("cannot be read" in record.message for record in caplog.records) == 1


def test_the_webhook_of_a_replica_gives_new_pods_what_is_stored() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            configure(api)
            api.put(NODES, {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "2"}}})
            pod = pod_with()
            service = pod["metadata"]["labels"]["serving.knative.dev/service"]
            put(
                api,
                {key_of(container(pod, "user-container")["image"], "default", service): line(cores=1.5)},
            )
            async with replica(api) as (process, _):
                await until(lambda: process.webhook.ready and process._nodes.synced.is_set())
                secret = api.get(SECRETS, "webhook-certs", SPACE)
                assert secret is not None
                held = Held(
                    Certificates.from_secret({name: base64.b64decode(text) for name, text in secret["data"].items()})
                )
                connection = await Serving(process.webhook, held, process._metrics.registry).connect()
                _, answer = await connection.ask("/mutate/pods", question(pod))
                connection.writer.close()
                env = env_of(stored_after(pod, answer))
                assert env["SPONGE_CORES"] == "1", "half of the largest node"
                assert json.loads(env["SPONGE_PROFILE"])["samples"] == 300

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
            assert keeper.lacks(KEYS[0], Line(cores=1.0, want=1.0), NOW)  # it does not say
            assert not keeper.lacks(KEYS[0], Line(cores=1.0, want=1.0, params=(0.0, 0.0, 0.0, 0.0)), NOW)
            assert keeper.lacks(KEYS[1], said(), NOW)

    run(body())


def test_an_image_in_use_keeps_its_place_though_nothing_is_news_and_one_without_a_place_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiles, "MOST_PROFILES", 2)

    async def body() -> None:
        async with stage() as (api, _, keeper):
            put(api, {KEYS[0]: line(NOW - 3000), KEYS[1]: line(NOW - 3000), KEYS[2]: line(NOW - 2000)})
            await keeper._store.read()
            for key in KEYS[:2]:
                assert not keeper.lacks(key, said(), NOW)
            keeper.learn(KEYS[3], document(), 1.0)
            await keeper.flush(NOW)
            assert set(stored(api)) == set(KEYS[:2])
            assert not keeper.lacks(KEYS[3], said(), NOW + 500)
            assert keeper.lacks(KEYS[2], said(), NOW + 500)
            assert keeper.lacks(KEYS[3], said(), NOW + 700)

    run(body())
