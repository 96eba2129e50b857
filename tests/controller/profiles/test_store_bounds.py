"""How many profiles there are, and which go when there are more."""

from __future__ import annotations

import pytest

from knative_sponge.controller.profiles import store as profiles
from knative_sponge.controller.profiles.profile import LONGEST
from knative_sponge.controller.profiles.store import MOST_BYTES, MOST_PROFILES, WRITE_S
from tests.controller.profile_kit import KEYS, document
from tests.controller.profiles.profile_store_kit import NOW, line, put, said, stage, stored
from tests.controller.revision_kit import run


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


def named(number: int, namespace: str) -> str:
    return f"{KEYS[number]}.{namespace}.model"


def test_each_namespace_has_its_share_of_the_room_however_much_another_stores() -> None:
    """One tenant's churn takes out nobody's profiles but its own."""

    async def body() -> None:
        async with stage() as (api, _, keeper):
            quiet = {named(number, "quiet"): line(NOW - 9999 - number) for number in range(20)}
            put(api, quiet | {named(number, "churn"): line(NOW - number) for number in range(20, MOST_PROFILES)})
            for turn in range(3):
                for number in range(100 + 10 * turn, 110 + 10 * turn):
                    keeper.learn(named(number, "churn"), document(), 1.0)
                await keeper.flush(NOW + turn * WRITE_S)
            assert stored(api).keys() >= quiet.keys()
            assert len(stored(api)) == MOST_PROFILES
            keeper.learn(named(149, "new"), document(), 1.0)
            await keeper.flush(NOW + 9 * WRITE_S)
            assert named(149, "new") in stored(api)
            assert stored(api).keys() >= quiet.keys()

    run(body())


def test_each_namespace_has_its_share_of_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "MOST_BYTES", 4 * (len(named(0, "quiet")) + len(line())))

    async def body() -> None:
        async with stage() as (api, _, keeper):
            quiet = named(0, "quiet")
            put(api, {quiet: line(NOW - 9999)})
            for number in range(1, 10):
                keeper.learn(named(number, "churn"), document(3000, sizes=60), 1.0)
            await keeper.flush(NOW)
            assert quiet in stored(api)

    run(body())
