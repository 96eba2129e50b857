"""Which revisions without pods have requests waiting for them, read from the activators' metrics; nothing is decided here.

Knative has no other source for that. Its activators push their counts to Knative's own autoscaler alone, over a connection that
cannot be shared. With `metrics-protocol: prometheus` each activator serves the counts at :9090/metrics as well.
`kn_revision_request_queued` (from Knative 1.22 on) counts a waiting request at once. `kn_revision_request_concurrency` is set
once a second, and in its first second leaves out one request: a single request shows in it after one to two seconds.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil, inf, nan
from typing import Final

import aiohttp

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.informer import Informer
from knative_sponge.controller.kube.resource import ENDPOINT_SLICES, Key, Object
from knative_sponge.controller.quarantine import Failures, text

_log: Final = logging.getLogger(__name__)

METRICS_PORT: Final = 9090
POLL_S: Final = 0.5
"""Time between two readings while some revision is idle."""
SLOW_POLL_S: Final = 5.0
"""Time between two readings while no revision is idle. Before one may go to zero, it must be known that they can be read."""
LOST_S: Final = 10.0
"""The view of the activators is lost when not all ready ones could be read for so long."""
_CALL_S: Final = 1.0
_LONGEST_LINE: Final = 64 * 1024
_LARGEST: Final = 64 * 2**20
"""Bytes of an activator's metrics at most: 100,000 revisions take half of it."""
_LONGEST_NUMBER: Final = 40
_MOST_REQUESTS: Final = 1e9
_VIEW: Final = "all activators"

_LINE: Final = re.compile(rb"\nkn_revision_request_(queued|active|concurrency)\{([^\n]*)\} (\S+)")
_NAMESPACE: Final = re.compile(rb'\bk8s_namespace_name="([^"]*)"')
_REVISION: Final = re.compile(rb'\bkn_revision_name="([^"]*)"')
_PROOF: Final = b"\ntarget_info{"
"""Every exporter with the metric names above has this metric too, even before the first request."""


@dataclass(frozen=True, slots=True)
class Activator:
    """One activator. ready: it gets new requests. One that is not ready may still hold requests while it ends."""

    address: str
    ready: bool


async def held_requests(chunks: AsyncIterator[bytes]) -> Mapping[Key, float]:
    """Requests that an activator holds, queued or proxied, by revision; counts above zero only.

    chunks: its metrics in Prometheus' text format; other metrics are skipped. Raises ValueError for a text without the metric
    names that activators have.
    """
    counted: dict[Key, float] = defaultdict(float)
    gauged: dict[Key, float] = defaultdict(float)
    proven = False
    rest = b"\n"
    read = 0
    async for chunk in chunks:
        read += len(chunk)
        part = rest + chunk
        end = part.rfind(b"\n")
        rest = part[end:]
        if len(rest) > _LONGEST_LINE or read > _LARGEST:
            raise ValueError("a line is too long, or there are too many")
        part = part[:end]
        proven = proven or _PROOF in part
        for match in _LINE.finditer(part):
            kind, labels, number = match.groups()
            namespace, revision = _NAMESPACE.search(labels), _REVISION.search(labels)
            if namespace and revision and (value := _count(number)) > 0.0:
                key = (namespace[1].decode(), revision[1].decode())
                (gauged if kind == b"concurrency" else counted)[key] += value
    if not proven:
        raise ValueError("the metrics have no target_info")
    return {key: max(gauged[key], counted[key]) for key in {*gauged, *counted}}


def _count(number: bytes) -> float:
    """Requests that a sample tells of. Raises ValueError for what is no number that a count can be."""
    value = float(number) if len(number) <= _LONGEST_NUMBER else nan
    if not -_MOST_REQUESTS <= value <= _MOST_REQUESTS:
        raise ValueError("a count that cannot be")
    return value


def kept_of_slice(item: Object) -> Object:
    """The EndpointSlice's name, and its addresses with their conditions."""
    metadata = item["metadata"]
    kept = {name: metadata[name] for name in ("namespace", "name", "resourceVersion")}
    endpoints = [
        {"addresses": endpoint.get("addresses") or [], "conditions": endpoint.get("conditions") or {}}
        for endpoint in item.get("endpoints") or ()
    ]
    return {"metadata": kept, "endpoints": endpoints}


def activators_of(slices: Iterable[Object]) -> tuple[Activator, ...]:
    """All activators that may hold requests. Without the condition `ready` an address counts as ready, as Kubernetes says."""
    found: dict[str, bool] = {}
    for item in slices:
        for endpoint in item["endpoints"]:
            conditions = endpoint["conditions"]
            ready = conditions.get("ready") is not False
            if ready or conditions.get("serving"):
                for address in endpoint["addresses"][:1]:
                    found[address] = found.get(address, False) or ready
    return tuple(Activator(address, ready) for address, ready in sorted(found.items()))


class Activators:
    """The view of all activators. `run` it on the leader only.

    port: of the activators' metrics. poll_s, slow_poll_s: see POLL_S, SLOW_POLL_S. clock: monotonic seconds.
    """

    def __init__(
        self,
        kube: Kube,
        system_namespace: str,
        rng: random.Random,
        *,
        port: int = METRICS_PORT,
        poll_s: float = POLL_S,
        slow_poll_s: float = SLOW_POLL_S,
        clock: Callable[[], float] = time.monotonic,
        failures: Failures | None = None,
    ) -> None:
        failures = failures or Failures()
        self._steps = failures.of("activators", LOST_S / 2)
        self._wake_steps = failures.of("waiting requests")
        self._slices = Informer(
            kube,
            ENDPOINT_SLICES,
            rng=rng,
            namespace=system_namespace,
            labels="kubernetes.io/service-name=activator-service",
            keep=kept_of_slice,
            failures=failures,
        )
        self._port = port
        self._poll_s = poll_s
        self._slow_poll_s = slow_poll_s
        self._clock = clock
        self._expected: set[Key] = set()
        self._hurry = asyncio.Event()
        self._on_request: Callable[[Key], None] = lambda _key: None
        self._on_view: Callable[[], None] = lambda: None
        self._held: dict[str, Mapping[Key, float]] = {}
        """Requests of expected revisions, by the address of the activator that holds them."""
        self._complete_s = -inf
        """When all ready activators could be read last."""
        self._since_s = clock()
        self._told = (False, False)
        """`visible` and `lost` as the subscriber was told last."""
        self._why = ""
        """Why they could not all be read last."""

    def subscribe(self, on_request: Callable[[Key], None], on_view: Callable[[], None]) -> None:
        """Call `on_request` for each expected revision that has requests waiting, with each reading, and `on_view` when
        `visible` or `lost` changes. There is one subscriber. Both functions must not block."""
        self._on_request, self._on_view = on_request, on_view

    def expect(self, key: Key, yes: bool) -> None:
        """Look for requests of this revision, or no more. The activators are read often only while a revision is expected."""
        if not yes:
            self._expected.discard(key)
            return
        if not self._expected:
            self._hurry.set()
        self._expected.add(key)

    def pending(self, key: Key) -> int:
        """Requests of an expected revision that the activators held when they were read last."""
        return ceil(sum(held.get(key, 0.0) for held in self._held.values())) if key in self._expected else 0

    @property
    def visible(self) -> bool:
        """Would a request be noticed? True while all ready activators can be read."""
        return self._clock() - self._complete_s < LOST_S

    @property
    def lost(self) -> bool:
        """Could not all ready activators be read for long? False at first: else each new leader would start pods of every idle
        revision."""
        return self._clock() - max(self._complete_s, self._since_s) >= LOST_S

    async def run(self) -> None:
        """Read the activators until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_CALL_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            group.create_task(self._slices.run(), name="watch activators")
            await self._slices.synced.wait()
            while True:
                try:
                    await self._poll(session)
                except Exception as error:
                    self._steps.failed(_VIEW, error)
                self._hurry.clear()
                try:
                    async with asyncio.timeout(self._poll_s if self._expected else self._slow_poll_s):
                        await self._hurry.wait()
                except TimeoutError:
                    continue

    async def _poll(self, session: aiohttp.ClientSession) -> None:
        activators = activators_of(self._slices.objects.values())
        for gone in self._held.keys() - {activator.address for activator in activators}:
            del self._held[gone]
        read = await asyncio.gather(*(self._read(session, activator.address) for activator in activators))
        ready = [answered for activator, answered in zip(activators, read, strict=True) if activator.ready]
        if ready and all(ready):
            self._complete_s = self._clock()
        elif not ready:
            self._why = "there is no ready activator"
        view = (self.visible, self.lost)
        if view == self._told:
            return
        if self.lost:
            _log.warning("the activators cannot be read, so no revision goes to zero: %s", self._why)
        elif self.visible:
            _log.info("the activators can be read: idle revisions may go to zero")
        self._told = view
        self._steps.run(_VIEW, self._on_view)

    async def _read(self, session: aiohttp.ClientSession, address: str) -> bool:
        host = f"[{address}]" if ":" in address else address
        # Compression costs an activator more time than it saves on a pod network.
        headers = {"Accept": "text/plain", "Accept-Encoding": "identity"}
        try:
            url = f"http://{host}:{self._port}/metrics"
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise ValueError(f"status {response.status}")
                held = await held_requests(response.content.iter_any())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._held.pop(address, None)
            self._why = f"{address}: {type(error).__name__}: {text(error)}"
            return False
        except Exception as error:
            self._held.pop(address, None)
            self._why = f"{address}: {type(error).__name__}"
            self._steps.failed(address, error)
            return False
        self._held[address] = {key: held[key] for key in self._expected & held.keys()}
        for key in list(self._held[address]):
            self._wake_steps.run(key, partial(self._on_request, key))
        return True
