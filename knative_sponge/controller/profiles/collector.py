"""Asks proxies for the latency models that they learned, so that other pods of their images can start with them.

One pod answers for its image. What is kept is decided in `store`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

import aiohttp

from knative_sponge.core.latency.profile import from_json
from knative_sponge.errors import ProfileError

_PORT: Final = 8022
_ANSWER_S: Final = 2.0
_LARGEST: Final = 64 * 1024
_AT_ONCE: Final = 8
_FEWEST: Final = 5
"""Measurements below which a model is a guess still."""

log = logging.getLogger(__name__)


class Learner(Protocol):
    """Where models go: `ProfileKeeper`."""

    def learn(self, key: str, model: Mapping[str, Any], cores: float | None) -> None: ...


class ModelCollector:
    """Fetches models over plain HTTP; at most _AT_ONCE at once, each bounded in time and size."""

    def __init__(self, learner: Learner, *, port: int = _PORT) -> None:
        """port: of the proxies' admin routes."""
        self._learner = learner
        self._port = port

    async def collect(self, pods: Mapping[str, str]) -> None:
        """One round. pods: IP address of one pod by image key (`controller.profiles.profile.key_of`). A pod that fails is
        left out."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(session: aiohttp.ClientSession, key: str, ip: str) -> None:
            async with places:
                try:
                    found = _read(await self._state(session, ip))
                except (aiohttp.ClientError, OSError, ValueError, RecursionError, ProfileError) as error:
                    log.debug("no model from %s: %s", ip, error)
                    return
            if found is not None:
                self._learner.learn(key, *found)

        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            await asyncio.gather(*(one(session, key, ip) for key, ip in pods.items()))

    async def _state(self, session: aiohttp.ClientSession, ip: str) -> bytes:
        host = f"[{ip}]" if ":" in ip else ip
        body = bytearray()
        async with session.get(f"http://{host}:{self._port}/sponge/v1/state", allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _LARGEST:
                    raise ValueError(f"more than {_LARGEST} bytes")
        return bytes(body)


def _read(body: bytes) -> tuple[Mapping[str, Any], float | None] | None:
    """The model and the cores that its pod needs under load; None while it has hardly learned. Raises ValueError,
    ProfileError."""
    state = json.loads(body)
    if not isinstance(state, dict) or not isinstance(model := state.get("model"), dict):
        raise ValueError("no state with a model")
    if from_json(model).learner.samples < _FEWEST:
        return None
    return model, _cores(state)


def _cores(state: Mapping[str, Any]) -> float | None:
    """None when the pod is idle: what it wants then says nothing about a pod that is started because load comes.

    No more than it has: what it wants beyond that may be what its node or a LimitRange does not give, and a new pod that asks
    for it would never start.
    """
    rate, sizes = state.get("rate"), state.get("cores")
    if not isinstance(rate, int | float) or rate <= 0 or not isinstance(sizes, dict):
        return None
    pair = [sizes.get("want"), sizes.get("now")]
    numbers = [float(each) for each in pair if isinstance(each, int | float) and not isinstance(each, bool)]
    return min(numbers) if len(numbers) == len(pair) and all(0.001 <= each <= 4096 for each in numbers) else None
