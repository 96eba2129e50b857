"""Asks proxies for the latency models that they learned, so that other pods of their images can start with them.

One pod answers for its image. What is kept is decided in `store`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

from knative_sponge.controller.quarantine import Failures
from knative_sponge.core.latency.profile import from_json
from knative_sponge.errors import ProfileError, WireError
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.http import ADMIN_PORT
from knative_sponge.wire.state import ProxyState

_ANSWER_S: Final = 2.0
_AT_ONCE: Final = 8
_FEWEST: Final = 5
"""Measurements below which a model is a guess still."""

log = logging.getLogger(__name__)


class Learner(Protocol):
    """Where models go: `ProfileKeeper`."""

    def learn(self, key: str, model: Mapping[str, Any], cores: float | None) -> None: ...


class ModelCollector:
    """Fetches models; at most _AT_ONCE at once, each bounded in time and size."""

    def __init__(self, learner: Learner, *, port: int = ADMIN_PORT, failures: Failures | None = None) -> None:
        """port: of the proxies' admin routes. failures: where answers that fail are reported."""
        self._steps = (failures or Failures()).of("models")
        self._learner = learner
        self._port = port

    async def collect(self, pods: Mapping[str, tuple[str, str]]) -> None:
        """One round. pods: IP address and token of one pod by image key (`controller.profiles.profile.key_of`). A pod that
        fails is left out."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(key: str, ip: str, token: str) -> None:
            if self._steps.holds(ip):
                return
            async with places:
                try:
                    found = _learned(await AdminClient(ip, self._port, token, reply_s=_ANSWER_S).state())
                    if found is not None:
                        self._learner.learn(key, *found)
                except (WireError, ProfileError) as error:
                    log.debug("no model from %s: %s", ip, error)
                    # Whoever does not answer takes up a place for two seconds.
                    self._steps.leave_alone(ip)
                except Exception as error:
                    self._steps.failed(ip, error)
                else:
                    self._steps.succeeded(ip)

        await asyncio.gather(*(one(key, *where) for key, where in pods.items()))


def _learned(state: ProxyState) -> tuple[Mapping[str, Any], float | None] | None:
    """The model and the cores that its pod needs under load; None while it has hardly learned. Raises ProfileError."""
    if from_json(state.model).learner.samples < _FEWEST:
        return None
    return state.model, _cores(state)


def _cores(state: ProxyState) -> float | None:
    """None when the pod is idle: what it wants then says nothing about a pod that is started because load comes.

    No more than it has: what it wants beyond that may be what its node or a LimitRange does not give, and a new pod that asks
    for it would never start.
    """
    cores = min(state.cores.want, state.cores.now)
    return cores if state.rate > 0 and 0.001 <= cores <= 4096 else None
