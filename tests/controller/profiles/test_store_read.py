"""The ConfigMap of profiles as every replica reads it: through failures, damage, and for new pods."""

from __future__ import annotations

import asyncio
import base64
import json
import logging

import pytest

from knative_sponge.controller.admission.certificate import Certificates
from knative_sponge.controller.kube.resource import NODES, PROFILES, SECRETS
from knative_sponge.controller.profiles import store as profiles
from knative_sponge.controller.profiles.profile import key_of
from knative_sponge.controller.profiles.store import MOST_PROFILES, NAME, WRITE_S
from tests.controller.admission.webhook_kit import Held, Serving
from tests.controller.admission_kit import container, env_of, pod_with, question, stored_after
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.profile_kit import KEYS, document
from tests.controller.profiles.profile_store_kit import NOW, SPACE, line, put, stage, stored
from tests.controller.revision_kit import run, until
from tests.controller.test_process import configure, replica


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
            labels, image = pod["metadata"]["labels"], container(pod, "user-container")["image"]
            service, owner = labels["serving.knative.dev/service"], labels["serving.knative.dev/configurationUID"]
            put(api, {key_of(image, "default", service, owner): line(cores=1.5)})
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
