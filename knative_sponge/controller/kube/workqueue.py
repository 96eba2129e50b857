"""A queue of the keys of objects to reconcile, each with one worker at a time; it knows nothing of the work itself.

A key that is added while a worker has it is handed out again afterwards. A key whose work failed comes back after a wait
that grows with each failure.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque

from knative_sponge.controller.kube.client import RETRY_S
from knative_sponge.controller.kube.resource import Key
from knative_sponge.core.backoff import Backoff


class WorkQueue:
    """Deduplicating queue of keys for any number of workers on one loop.

    rng: spreads retries.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ready: deque[Key] = deque()
        self._wanted: set[Key] = set()
        self._held: set[Key] = set()
        self._waiting: dict[Key, asyncio.TimerHandle] = {}
        self._backoffs: dict[Key, Backoff] = {}
        self._wake = asyncio.Event()

    def add(self, key: Key) -> None:
        """Hand out `key` as soon as a worker is free."""
        if (timer := self._waiting.pop(key, None)) is not None:
            timer.cancel()
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._held:
            self._ready.append(key)
            self._wake.set()

    def add_later(self, key: Key, wait_s: float) -> None:
        """Hand out `key` after `wait_s` seconds, or with the next `add` if that comes sooner."""
        if (timer := self._waiting.pop(key, None)) is not None:
            timer.cancel()
        if key not in self._wanted:
            self._waiting[key] = asyncio.get_running_loop().call_later(wait_s, self.add, key)

    async def take(self) -> Key:
        """The next key; the worker must give it back with `done` or `failed`."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._held.add(key)
        return key

    def done(self, key: Key) -> None:
        """The work on `key` succeeded."""
        self._backoffs.pop(key, None)
        self._give_back(key)

    def failed(self, key: Key) -> float:
        """The work on `key` failed. It comes back after the returned wait in seconds, or with the next `add`."""
        wait_s = self._backoffs.setdefault(key, Backoff(*RETRY_S, self._rng.random)).wait_s()
        self._give_back(key)
        self.add_later(key, wait_s)
        return wait_s

    def close(self) -> None:
        """Forget all keys that wait."""
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._wanted) + len(self._waiting)

    def _give_back(self, key: Key) -> None:
        self._held.discard(key)
        if key in self._wanted:
            self._ready.append(key)
            self._wake.set()
