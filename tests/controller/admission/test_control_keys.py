"""The keys of control tokens: made, renewed and removed by the leader, read by all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from typing import Any

import pytest

from knative_sponge.controller.admission import control_keys
from knative_sponge.controller.admission.control_keys import PATIENCE_S, SUCCEEDED_S, ControlKeys, KeyRotation, ring_of
from knative_sponge.controller.cluster.control_token import key_named
from knative_sponge.controller.kube.resource import SECRETS
from knative_sponge.errors import KubeConflict
from tests.controller.admission.fake_store import SETTINGS, FakeStore, failing

NAME = (SECRETS.plural, SETTINGS.namespace, SETTINGS.control_secret)
LIFETIME_S = SETTINGS.control_key_lifetime_s


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Pods:
    """The keys that pods name; None while not all pods are known."""

    def __init__(self, *used: int) -> None:
        self.used: set[int] | None = set(used)

    def __call__(self) -> set[int] | None:
        return self.used


def stored(store: FakeStore) -> dict[int, bytes]:
    return dict(ring_of(store.objects[NAME]).keys)


def put(store: FakeStore, data: dict[str, Any]) -> None:
    store.objects[NAME] = {"metadata": {"name": SETTINGS.control_secret, "resourceVersion": "7"}, "data": data}


def test_the_leader_makes_a_key_of_which_nothing_can_be_guessed() -> None:
    first, second = FakeStore(), FakeStore()
    for store in (first, second):
        asyncio.run(KeyRotation(store, SETTINGS, Pods(), now=Clock()).check())
    assert list(stored(first)) == [1_800_000_000]
    assert [len(key) for key in stored(first).values()] == [32]
    assert stored(first) != stored(second)
    assert first.objects[NAME]["type"] == "Opaque"


def test_a_key_in_its_lifetime_is_left_alone() -> None:
    store, clock = FakeStore(), Clock()
    rotation = KeyRotation(store, SETTINGS, Pods(), now=clock)
    asyncio.run(rotation.check())
    before = stored(store)
    clock.now += LIFETIME_S - 1
    asyncio.run(rotation.check())
    assert stored(store) == before
    assert store.writes == [("create", "secrets")]


def test_an_old_key_gets_a_successor_and_stays_while_pods_name_it() -> None:
    store, clock, pods = FakeStore(), Clock(), Pods(1_800_000_000)
    rotation = KeyRotation(store, SETTINGS, pods, now=clock)
    asyncio.run(rotation.check())
    (old,) = stored(store).values()
    clock.now += LIFETIME_S
    asyncio.run(rotation.check())
    assert list(stored(store)) == [1_800_000_000, 1_800_000_000 + int(LIFETIME_S)]
    clock.now += 10 * SUCCEEDED_S
    asyncio.run(rotation.check())
    assert stored(store)[1_800_000_000] == old
    pods.used = set()
    asyncio.run(rotation.check())
    assert list(stored(store)) == [1_800_000_000 + int(LIFETIME_S)]


def test_a_key_that_a_replica_may_still_use_is_not_removed() -> None:
    store, clock = FakeStore(), Clock()
    rotation = KeyRotation(store, SETTINGS, Pods(), now=clock)
    asyncio.run(rotation.check())
    clock.now += LIFETIME_S
    asyncio.run(rotation.check())
    clock.now += SUCCEEDED_S - 1
    asyncio.run(rotation.check())
    assert len(stored(store)) == 2
    clock.now += 1
    asyncio.run(rotation.check())
    assert len(stored(store)) == 1


def test_no_key_is_removed_while_not_all_pods_are_known() -> None:
    store, clock, pods = FakeStore(), Clock(), Pods()
    pods.used = None
    rotation = KeyRotation(store, SETTINGS, pods, now=clock)
    asyncio.run(rotation.check())
    clock.now += LIFETIME_S
    asyncio.run(rotation.check())
    clock.now += 10 * SUCCEEDED_S
    asyncio.run(rotation.check())
    assert len(stored(store)) == 2


@pytest.mark.parametrize(
    "data",
    [None, {}, {"1800000000": "%%%"}, {"1800000000": base64.b64encode(b"short").decode()}, {"first": "eA=="}, {"1": None},
     {"٣": base64.b64encode(b"k" * 32).decode()}],
)  # fmt: skip
def test_a_secret_without_a_usable_key_gets_one(data: Any) -> None:
    store = FakeStore()
    put(store, data)
    asyncio.run(KeyRotation(store, SETTINGS, Pods(), now=Clock()).check())
    assert list(stored(store)) == [1_800_000_000]


def test_two_leaders_make_one_key() -> None:
    store = FakeStore()
    rotation = KeyRotation(store, SETTINGS, Pods(), now=Clock())
    other = base64.b64encode(b"o" * 32).decode()

    def before(verb: str, _plural: str) -> None:
        if verb == "create":
            put(store, {"1799999999": other})

    store.before = before
    with pytest.raises(KubeConflict):
        asyncio.run(rotation.check())
    store.before = lambda verb, plural: None
    asyncio.run(rotation.check())
    assert stored(store) == {1_799_999_999: b"o" * 32}


def test_a_replica_mints_what_another_one_can_open() -> None:
    async def body() -> None:
        store = FakeStore()
        await KeyRotation(store, SETTINGS, Pods(), now=Clock()).check()
        one, other = ControlKeys(store, SETTINGS), ControlKeys(store, SETTINGS)
        await one.read()
        await other.read()
        controls = [one.mint("shop", 1.0) for _ in range(20)]
        assert len({control.reference for control in controls if control is not None}) == 20
        for control in controls:
            assert control is not None
            assert hashlib.sha256(other.token("shop", control.reference).encode()).hexdigest() == control.digest
            assert other.admitted("shop", control.reference, control.digest) == 1.0
            assert other.admitted("thief", control.reference, control.digest) == 0.0

    asyncio.run(body())


def test_a_replica_without_a_key_admits_and_is_not_ready_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        clock = Clock()
        keys = ControlKeys(FakeStore(), SETTINGS, clock=clock)
        await keys.read()
        assert keys.mint("shop", 1.0) is None
        assert not keys.ready
        clock.now += PATIENCE_S
        assert keys.ready, "pods with Knative's own proxy would serve worse"

    asyncio.run(body())
    assert "without a control key" in caplog.text


def test_keys_that_are_gone_stay_known_until_others_are_there() -> None:
    async def body() -> None:
        store = FakeStore()
        rotation = KeyRotation(store, SETTINGS, Pods(), now=Clock())
        await rotation.check()
        keys = ControlKeys(store, SETTINGS)
        heard: list[int] = []
        keys.subscribe(lambda: heard.append(1))
        await keys.read()
        control = keys.mint("shop", 1.0)
        assert control is not None
        token = keys.token("shop", control.reference)
        del store.objects[NAME]
        await keys.read()
        assert keys.token("shop", control.reference) == token
        put(store, {"1900000000": base64.b64encode(b"o" * 32).decode()})
        await keys.read()
        assert keys.token("shop", control.reference) == ""
        assert key_named((keys.mint("shop", 1.0) or control).reference) == 1_900_000_000
        assert len(heard) == 2, "told of each change, and of nothing else"

    asyncio.run(body())


def test_an_unknown_key_is_looked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other replica may have admitted a pod with a key that was made a moment ago."""
    monkeypatch.setattr(control_keys, "ABSENT_S", 0.01)
    monkeypatch.setattr(control_keys, "READ_S", 1e6)

    async def body() -> None:
        store = FakeStore()
        put(store, {"1800000000": base64.b64encode(b"o" * 32).decode()})
        keys = ControlKeys(store, SETTINGS)
        following = asyncio.create_task(keys.run())
        async with asyncio.timeout(10):
            while keys.mint("shop", 1.0) is None:
                await asyncio.sleep(0.001)
            put(store, {"1900000000": base64.b64encode(b"n" * 32).decode()})
            while not keys.token("shop", "1900000000.x"):
                await asyncio.sleep(0.001)
        following.cancel()

    asyncio.run(body())


def test_failures_are_logged_once_and_without_any_key(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_keys, "ABSENT_S", 0.001)

    async def body() -> None:
        store = FakeStore()
        put(store, {"1800000000": base64.b64encode(b"o" * 32).decode()})
        store.before = failing(3)
        keys = ControlKeys(store, SETTINGS)
        following = asyncio.create_task(keys.run())
        async with asyncio.timeout(10):
            while keys.mint("shop", 1.0) is None:
                await asyncio.sleep(0.001)
        following.cancel()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(body())
    assert caplog.text.count("cannot be read") == 1
    assert base64.b64encode(b"o" * 32).decode() not in caplog.text
