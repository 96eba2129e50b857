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
