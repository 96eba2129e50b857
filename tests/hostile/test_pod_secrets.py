"""What can be read off a pod, or guessed, opens nothing: a pod has no secret that its readers could use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from knative_sponge.controller.admission.pod import review_pod
from knative_sponge.controller.cluster.control_token import KeyRing
from knative_sponge.controller.cluster.pod import control_reference
from knative_sponge.settings import ProxySettings
from tests.controller.admission_kit import container, pod_with
from tests.proxy.live import live

RING = KeyRing({1_800_000_000: b"k" * 32})


def texts(value: Any) -> Iterator[str]:
    """Every text in an object, and its parts."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value
        yield from value.split(".")


def test_whoever_may_read_a_pod_can_neither_resize_it_nor_listen_to_it() -> None:
    pod = review_pod(
        pod_with(), "queue-proxy:1", lambda namespace, _cores: RING.mint(namespace, "n0nce"), namespace="shop"
    ).changed
    assert pod is not None
    env = {one["name"]: one.get("value", "10.0.0.7") for one in container(pod, "queue-proxy")["env"]}
    digest = ProxySettings.from_env(env).control_token_sha256
    token = RING.token("shop", control_reference(dict(pod)))
    guesses = {text for text in texts(pod) if text.isascii() and text.isprintable()}
    # A pod of another namespace with the same reference is shown this.
    guesses |= {RING.token("thief", control_reference(dict(pod))) or "", ""}
    assert len(guesses) > 100

    async def body() -> None:
        async with live(control_token=None, control_token_sha256=digest) as proxy:
            message = {"cores": 2.0, "phase": "actuated"}
            statuses = {await proxy.put_cores(message, guess) for guess in guesses}
            assert statuses == {401}
            assert (await proxy.state())["cores"]["now"] == 1.0
            assert await proxy.put_cores(message, token) == 204

    asyncio.run(body())
