"""What every proxy asks for, kept up to date: one stream of demands per pod (docs/design.md §5.2); nothing is decided here.

A stream that ends is opened again after a growing wait, one that says nothing for SILENCE_S is dead. At most CONNECTING
connections are being made at once.

Each stream is a protocol of the event loop; no task is woken for a line. That costs 0.35 s of CPU for 10,000 lines: uvloop,
2,000 streams that say 370 bytes a second each, decoding included, two busy cores, median of five runs. A reader callback for
each socket costs 0.47 s. One epoll for all, looked at every 10 ms, costs 0.30 s; the difference is 1 % of a core, not worth a
second way to read.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.quarantine import Failures
from knative_sponge.core.backoff import Backoff
from knative_sponge.errors import WireError
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.demand import DemandLine
from knative_sponge.wire.http import ADMIN_PORT

_log: Final = logging.getLogger(__name__)

SILENCE_S: Final = 5.0
"""A proxy says something every second; after so long without a word its connection is given up."""
CONNECTING: Final = 32


@dataclass(frozen=True, slots=True)
class Address:
    """Where a pod's proxy is, and the token that it asks for. uid: a pod of the same name is another pod."""

    ip: str
    token: str = field(repr=False)
    uid: str


class DemandStreams:
    """All streams. `follow` says which there shall be; must not be called outside a running loop.

    heard: told the pod and its line, as lines come.
    """

    def __init__(
        self,
        rng: random.Random,
        heard: Callable[[Key, DemandLine], None],
        *,
        port: int = ADMIN_PORT,
        failures: Failures | None = None,
    ) -> None:
        self._rng = rng
        self._steps = (failures or Failures()).of("demands")
        self._heard = heard
        self._port = port
        self._streams: dict[Key, _Stream] = {}
        self._connecting = asyncio.Semaphore(CONNECTING)

    def follow(self, pods: Mapping[Key, Address]) -> None:
        """From now on there is a stream to each of these pods and to no other."""
        for key in [key for key, stream in self._streams.items() if pods.get(key) != stream.address]:
            self._streams.pop(key).close()
        for key, address in pods.items():
            if key not in self._streams:
                self._streams[key] = _Stream(key, address, self)

    def close(self) -> None:
        """End all streams."""
        self.follow({})


class _Stream:
    """One pod's stream and the task that keeps it open."""

    __slots__ = ("_backoff", "_key", "_owner", "_task", "address")

    def __init__(self, key: Key, address: Address, owner: DemandStreams) -> None:
        self.address = address
        self._key = key
        self._owner = owner
        self._backoff = Backoff(0.1, 5.0, owner._rng.random)
        self._task = asyncio.create_task(self._run(), name=f"demand of {key[0]}/{key[1]}")

    def close(self) -> None:
        self._task.cancel()

    def _hear(self, line: DemandLine) -> None:
        try:
            self._owner._heard(self._key, line)
        except Exception as error:
            # A line that nobody understands ends this stream, and no other.
            self._owner._steps.failed(self._key, error)
            raise WireError("its demand cannot be used") from error
        self._backoff.succeeded()

    async def _run(self) -> None:
        owner, address = self._owner, self.address
        client = AdminClient(address.ip, owner._port, address.token, silence_s=SILENCE_S)
        while True:
            try:
                await client.listen(self._hear, connecting=owner._connecting)
            except WireError as error:
                _log.debug("%s/%s: no demand stream: %s", *self._key, error)
            except Exception as error:
                owner._steps.failed(self._key, error)
            await asyncio.sleep(self._backoff.wait_s())
